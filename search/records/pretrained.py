"""A pretrained member as a folder that peft or transformers loads: its adapter, or the whole model."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from shoal.cluster.storage import Store
from shoal.search.config.places import is_hub_name
from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.models import settings_of
from shoal.search.records.inputs import READ_AT_ONCE
from shoal.trainables.pretrained import peft_files
from shoal.trainables.pretrained.settings import Pretrained, own_config

WHOLE, TOLD = "model.safetensors", "shoal.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def export_pretrained(
    run: Run, weights: Mapping[str, NDArray[Any]], told: dict[str, Any], target: Store, merge: bool
) -> str:
    """Write a member's weights; return the name of the file that has them. `told` is kept beside them.

    An adapter is written as peft does. With `merge`, or where all weights trained, it is a whole model.
    """
    given = settings_of(run)
    if given.adapter is None and merge:
        raise InputError("--merge: adds an adapter to its base, and this model trained whole; leave it out.")
    if given.adapter is None or merge:
        write_whole(given, weights, target, told)
        name = WHOLE
    else:
        # a folder of a package is another one on another machine, but peft knows no packages
        write_adapter(given, weights, run.model.path if is_hub_name(run.model.path) else given.path, target)
        name = peft_files.WEIGHTS
    if name == WHOLE and own_config(given.path) is None:
        config = json.loads(target.read("config.json")) | {"shoal": told}
        # transformers lets a model look both ways whose configuration says so
        target.write_json("config.json", config | ({"is_causal": False} if run.hides else {}))
    elif name != WHOLE:  # with a config.json transformers would take the folder for a whole model
        target.write_json(TOLD, told)
    for file in TOKENIZER_FILES:
        if (found := Path(run.data.tokenizer, file)).exists():
            target.write(file, found.read_bytes())
    return name


def write_adapter(given: Pretrained, weights: Mapping[str, NDArray[Any]], base: str, target: Store) -> None:
    assert given.adapter is not None
    rank = used_rank(weights)
    target.write(peft_files.WEIGHTS, save(peft_files.adapter_weights(weights, rank), {"format": "pt"}))
    # the product that an adapter began with, and takes off again, stands in the file as more ranks
    stored = 2 * rank if any(name.endswith(".began_down") for name in weights) else rank
    target.write_json(peft_files.CONFIG, peft_files.adapter_config(given.adapter, stored, base))


def used_rank(weights: Mapping[str, NDArray[Any]]) -> int:
    """Return how many ranks are in use; those that are not have a row of zeros in `down`."""
    downs = [weight for name, weight in weights.items() if name.endswith(".down")]
    used = [np.any(down != 0, axis=1).nonzero()[0] for down in downs]
    return max([1, *(int(places.max()) + 1 for places in used if len(places))])


def write_whole(
    given: Pretrained, weights: Mapping[str, NDArray[Any]], target: Store, told: dict[str, Any]
) -> None:
    """Write a whole model as it was: one of transformers, or an exported decoder, which stays one."""
    import torch

    from shoal.trainables.pretrained.folder import loaded_model

    # trained weights are float32; a merged adapter leaves its base as it was stored
    module: Any = loaded_model(given.path, torch.float32 if given.adapter is None else "auto")
    if given.adapter is None:
        known = dict(module.named_parameters())
        with torch.no_grad():
            for name, weight in weights.items():
                known[name].copy_(torch.from_numpy(np.array(weight)))
    else:
        peft_files.merge_adapter(module, weights, given.adapter.scale)
    if (own := own_config(given.path)) is not None:
        plain = {name: value.numpy() for name, value in module.state_dict().items()}
        target.write(WHOLE, save(plain))
        kept = {name: own[name] for name in ("trainable", "shape", "tokenizer")}
        target.write_json("config.json", {**told, **kept, "objective": []})
        return
    with tempfile.TemporaryDirectory() as folder:
        module.save_pretrained(folder)
        for file in sorted(Path(folder).iterdir()):
            target.write_pieces(file.name, pieces_of(file))


def pieces_of(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while part := opened.read(READ_AT_ONCE):
            yield part
