"""A student of a finished run as a folder: safetensors, and a configuration that transformers can load."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from shoal.search.config.run import Run
from shoal.search.distill.card import read_teacher
from shoal.search.distill.costs import spaces_of
from shoal.search.distill.students import STUDENTS
from shoal.search.errors import InputError, nearest
from shoal.trainables.distill.elastic import extract
from shoal.trainables.distill.families import NETWORKS, to_transformers
from shoal.trainables.distill.spaces import Subnet

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def export_student(run: Run, store: Store, name: str, to: Store | None = None) -> str:
    """Write a student into DIR/students/NAME; return the folder.

    If transformers has a network of this shape, `AutoModel.from_pretrained` loads the folder. Otherwise it
    holds our own names of weights, and config.json says so. Raises InputError if there is no such student.
    """
    if not store.exists(STUDENTS):
        raise InputError(f"{run.directory} has no students: it is not of kind distill, or not finished.")
    known = store.read_json(STUDENTS)
    rows = {row["name"]: row for row in known["students"]}
    if name not in rows:
        raise InputError(f"--student: no student is called {name}{nearest(name, rows)}")
    row = rows[name]
    network = student(run, store, known["round"], row)
    config, weights = expressed(network)
    shape = network.shape.plain()
    config["shoal"] = {"run": run.name, "student": name, "shape": shape, "loss": row["loss"]}
    config["shoal"] |= {"accuracy": row["accuracy"]} if "accuracy" in row else {}
    target = to or Store(f"{store.uri}/students/{name}")
    target.write("model.safetensors", save(weights, metadata={"format": "pt"}))
    target.write("config.json", json.dumps(config, indent=2) + "\n")
    copy_tokenizer(run, target)
    return target.uri


def student(run: Run, store: Store, round_: int, row: dict[str, Any]) -> Any:
    """Return the student as a network of its own."""
    shape = read_teacher(run).shape
    assert shape is not None
    whole = spaces_of(run, shape)[row["space"]].whole
    network = NETWORKS[shape.family](shape.cut(whole))
    weights = checkpoints.load_member(store, round_, row["member"])["weights"]
    # the checkpoint may also hold a projection to the teacher's width, which only training needs
    network.load_state_dict({key: torch.from_numpy(weights[key].copy()) for key in network.state_dict()})
    return extract(network, Subnet.of(row["subnet"])).eval()


def expressed(network: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return configuration and weights in the form of transformers if it has one, else in our own."""
    found = to_transformers(network)
    if found is not None:
        return found
    return {"model_type": "shoal", "architectures": [network.shape.family.capitalize()]}, network.state_dict()


def copy_tokenizer(run: Run, target: Store) -> None:
    """Write the teacher's tokenizer beside the student."""
    for name in TOKENIZER:
        file = Path(run.data.tokenizer, name)
        if file.exists():
            target.write(name, file.read_bytes())
