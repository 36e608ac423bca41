"""The exported model of a former run that `mixing.reference` names: what DoReMi measures an excess over."""

import json
from typing import TYPE_CHECKING, Any

import pyarrow.lib

from cluster.storage import Store
from search.errors import InputError
from trainables.tokenizer import tokenizer_of

if TYPE_CHECKING:
    from search.config import Run


def check_reference(run: "Run") -> None:
    """Raise InputError if the run names a reference that is not there, or that reads other tokens."""
    if run.mixing is not None and run.mixing.reference is not None:
        read_card(run, run.mixing.reference)


def read_card(run: "Run", folder: str) -> dict[str, Any]:
    """Return what an exported model's config.json says, if the model can be the run's reference."""
    try:
        store = Store(folder)
        card: dict[str, Any] = json.loads(store.read("config.json"))
        there = store.exists("model.safetensors")
    except (OSError, ValueError, pyarrow.lib.ArrowException):
        there = False
    if not there:
        raise InputError(
            f"mixing.reference: must be the folder of an exported model, with config.json and "
            f"model.safetensors, such as runs/NAME/best, got {folder}."
        )
    if card.get("trainable") != "decoder" or "vocabulary" not in card.get("shape", {}):
        raise InputError(f"mixing.reference: must be a decoder, got {card.get('trainable')} in {folder}.")
    try:
        ours = tokenizer_of(run.data.tokenizer).vocabulary
    except ValueError as error:
        raise InputError(f"data.tokenizer: {error}") from error
    if ours != card["shape"]["vocabulary"]:
        raise InputError(
            f"mixing.reference: must read the run's tokens, of which {run.data.tokenizer} has {ours}, but "
            f"{folder} has {card['shape']['vocabulary']}; use a model of a run with the same data.tokenizer."
        )
    return card
