"""Read a decoder that `shoal export` wrote: a later run scores rows by it, or compares losses with it."""

import json
import os
from typing import Any

from shoal.search.config.places import is_place
from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.hidden_tokens import finds_hidden
from shoal.search.models import check_told
from shoal.search.tokenizers import open_tokenizer


def read_exported(key: str, folder: str) -> dict[str, Any]:
    """Return an exported model's config.json; raises InputError under the key if no model is there."""
    import pyarrow.lib  # late, since checking a file without a model needs neither

    from shoal.cluster.storage import Store

    try:
        store = Store(folder)
        config: dict[str, Any] = json.loads(store.read("config.json"))
        if store.exists("model.safetensors"):
            return config
    except (OSError, ValueError, pyarrow.lib.ArrowException):
        pass  # one message for both a missing and a broken model, below
    raise InputError(
        f"{key}: must be the folder of an exported model, with config.json and model.safetensors, such as "
        f"runs/NAME/best, got {folder}."
    )


def trainable_of(folder: str) -> str:
    """Return what an exported model was in its run, such as decoder; nothing for any other folder."""
    from shoal.cluster.storage import Store

    if not is_place(folder):
        return ""
    store = Store(folder)
    found = json.loads(store.read("config.json")) if store.exists("config.json") else {}
    return str(found.get("trainable", ""))


def check_exported(
    key: str, folder: str, tokenizer: str, vocabulary: int, both_ways: bool = False
) -> dict[str, Any]:
    """Return the config.json of an exported decoder; raises InputError if it reads other tokens than these.

    One that was trained on hidden tokens finds no next ones: it serves only where texts are read `both_ways`.
    """
    config = read_exported(key, folder)
    if not both_ways and finds_hidden(config):
        raise InputError(
            f"{key}: must be a decoder that finds the next token, but {folder} was trained on hidden ones."
        )
    theirs = config.get("trainable"), config.get("tokenizer"), config.get("shape", {}).get("vocabulary")
    # the tokenizer may be in another folder than at the model's training, so compare names
    names = {os.path.basename(str(name)) for name in (tokenizer, theirs[1])}
    if theirs[0] != "decoder" or len(names) > 1 or theirs[2] != vocabulary:
        raise InputError(
            f"{key}: must be a decoder for tokenizer {tokenizer} of {vocabulary} tokens, as the run has, but "
            f"{folder} is {theirs[0]} for {theirs[1]} of {theirs[2]}."
        )
    return config


def check_reference(run: Run) -> None:
    """Raise InputError if the run names a reference that is not there, or that reads other tokens."""
    if run.mixing is None or run.mixing.reference is None:
        return
    if run.trainable == "causal_lm":
        check_told(run, "mixing.reference", run.mixing.reference)
        return
    if run.own:
        theirs = read_exported("mixing.reference", run.mixing.reference).get("trainable")
        if theirs != run.trainable:
            raise InputError(
                f"mixing.reference: must be of the members' class, {run.trainable}, but "
                f"{run.mixing.reference} is of {theirs}."
            )
        return
    vocabulary = open_tokenizer(run.data.tokenizer).vocabulary
    check_exported("mixing.reference", run.mixing.reference, run.data.tokenizer, vocabulary)
