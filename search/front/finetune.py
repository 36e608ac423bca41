"""The run file of `shoal init finetune`: adapters of the user's model, on the user's examples."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shoal.search.errors import InputError
from shoal.search.front.groups import group_name, groups_in

LONGEST_ROWS = 512  # tokens; a model with fewer positions has shorter rows
EXAMPLES = (".jsonl", ".ndjson", ".json")
PAIRS = (  # names of fields: what is asked, and what is to be learnt
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("query", "response"),
    ("input", "output"),
)
TARGETS = ({"q_proj", "v_proj"}, {"query", "value"}, {"query_key_value"}, {"qkv_proj"}, {"Wqkv"})


def finetune_settings(name: str, data: str | None, model: str | None) -> dict[str, Any]:
    """Return the settings of a new run; raises InputError for what cannot be used."""
    if model is None:
        raise InputError(
            "--model: the folder of a model is needed, or package:NAME/FOLDER, or its name on the hub."
        )
    if data is None:
        raise InputError(
            "--data: the folder of your examples is needed, such as JSONL with questions and answers."
        )
    files = example_files(data)
    found = groups_in(data)
    if list(found.values()) == [data] and len(files) > 1:
        found = {group_name(Path(file).stem): file for file in files}
    shape = read_as(files[0]) if files else {}
    targets, length = fitting_layers(model)
    return {
        "name": name,
        "seed": 1,
        "trainable": "causal_lm",
        "model": {"path": model, "adapter": {"kind": "lora", "rank": 8, "alpha": 16, "targets": targets}},
        "data": {"corpus": f"runs/corpus/{name}", "groups": found, **shape, "sequence_length": length},
        "training": {"steps": 400, "batch": 8, "warmup": 20, "evaluation_rows": 32, "weight_decay": 0.0},
        "hyperparameters": {
            "learning_rate": {"kind": "float", "low": 0.00003, "high": 0.003, "log": True},
            "dropout": {"kind": "float", "low": 0.0, "high": 0.3},
        },
        "population": {"members": 4, "interval": 50, "exploit": {"kind": "truncation", "fraction": 0.25}},
        "cluster": {"broods": 1, "workers_per_brood": 1},
        "checkpoint": {"keep": 1},
    }


def example_files(folder: str) -> list[str]:
    """Return the files of examples that lie in a folder itself, or else those in the folders in it."""
    here = sorted(str(file) for file in Path(folder).glob("*") if file.suffix in EXAMPLES)
    return here or sorted(str(file) for file in Path(folder).glob("*/*") if file.suffix in EXAMPLES)


def read_as(file: str) -> dict[str, Any]:
    """Return the keys of `data:` that say how records like a file's first one are read."""
    record = first_record(file)
    for field, value in record.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping) and "role" in value[0]:
            return {"format": {"kind": "chat", "field": field}}
    if {"instruction", "input", "output"} <= record.keys():
        return {"format": {"kind": "instruction", "prompt": "{instruction}\n{input}", "answer": "output"}}
    for prompt, answer in PAIRS:
        if {prompt, answer} <= record.keys():
            return {"format": {"kind": "instruction", "prompt": prompt, "answer": answer}}
    words = [field for field, value in record.items() if isinstance(value, str)]
    if not words:
        raise InputError(
            f"--data: the first record of {file} must hold messages, a question and answer, or text, but has "
            f"{', '.join(record) or 'nothing'}."
        )
    return {} if "text" in words else {"text_field": words[0]}


def first_record(file: str) -> dict[str, Any]:
    """Return the first record of a file of JSON or JSON lines."""
    try:
        with open(file, encoding="utf-8") as lines:
            line = next((line for line in lines if line.strip()), "{}")
        found = json.loads(line)
    except ValueError:  # a list over many lines
        found = json.loads(Path(file).read_text("utf-8"))
    except OSError as error:
        raise InputError(f"--data: {file} cannot be read: {error.strerror}.") from error
    found = found[0] if isinstance(found, list) and found else found
    return found if isinstance(found, dict) else {}


def fitting_layers(model: str) -> tuple[list[str], int]:
    """Return the layers of a model that get adapters, and the length of rows."""
    from shoal.search.models import config_of, local_folder, outline_of
    from shoal.trainables.pretrained.low_rank import linear_sizes

    folder = local_folder("--model", model)
    positions = config_of(folder).get("max_position_embeddings") or LONGEST_ROWS
    module = outline_of(folder)
    head = module.get_output_embeddings()
    heads = {name for name, part in module.named_modules() if part is head}
    lasts = {name.rpartition(".")[2] for name in linear_sizes(module) if name not in heads}
    if not lasts:
        raise InputError(f"--model: {model} has no linear layer that an adapter could stand beside.")
    chosen = next((names for names in TARGETS if names <= lasts), lasts)
    return sorted(chosen), min(LONGEST_ROWS, int(positions))
