"""What a run knows of what its embedders read: frozen documents, texts and their encoder."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from safetensors.numpy import load

from shoal.cluster.storage import Store
from shoal.search.config.places import unpackaged
from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.exported import check_exported, read_exported
from shoal.search.tokenizers import open_tokenizer
from shoal.trainables.embedder_settings import EmbedderSettings
from shoal.trainables.objectives.weighted import Weighted
from shoal.trainables.settings import DecoderShape
from shoal.trainables.tokenizer import TOKENIZERS


def unpackaged_settings(settings: EmbedderSettings) -> EmbedderSettings:
    """Return the settings with the folder of an encoder that lies in a package."""
    return replace(settings, encoder=unpackaged("settings.encoder", settings.encoder))


def documents_of(settings: EmbedderSettings) -> Any:
    """Return the frozen vectors among which queries search, of length 1: `(documents, width)`."""
    try:
        found = np.load(settings.index, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"settings.index: {settings.index} must be a .npy file, {error}") from error
    if found.ndim != 2 or found.shape[1] != settings.width or len(found) < 2:
        raise InputError(
            f"settings.index: must hold at least 2 vectors of {settings.width} numbers (settings.width), got "
            f"the shape {list(found.shape)}"
        )
    if found.dtype.kind not in "biuf" or not np.isfinite(found).all():
        raise InputError(f"settings.index: must hold finite numbers, but {settings.index} has others")
    lengths = np.linalg.norm(found.astype(np.float32), axis=1, keepdims=True)
    return found.astype(np.float32) / np.maximum(lengths, 1e-12)


def texts_of(run: Run, settings: EmbedderSettings, losses: Weighted) -> dict[str, Any]:
    """Return an embedder's constants for texts, or nothing where its rows hold vectors."""
    columns: dict[str, Any] = {
        role: run.data.columns.get(settings.roles[role]) for role in settings.read if role != "document"
    }
    texts = {role: column for role, column in columns.items() if getattr(column, "kind", "") == "text"}
    if not texts:
        if settings.encoder:
            raise InputError("settings.encoder: reads texts, but data.columns.query is no `kind: text`")
        return {}
    if len(texts) < len(columns):
        raise InputError("data.columns: queries and positives must both be of `kind: text`, or both be tensors")
    check_lists(run, settings, losses, columns)
    kinds = {(column.tokenizer, column.length) for column in texts.values()}
    if settings.towers == "one" and len(kinds) > 1:
        raise InputError("data.columns: queries and positives must have one tokenizer and one length")
    [tokenizer, *others] = {tokenizer for tokenizer, _ in kinds}
    if others:
        raise InputError("data.columns: queries and positives must have one tokenizer")
    vocabulary, longest = open_tokenizer(tokenizer).vocabulary, max(length for _, length in kinds)
    return {"vocabulary": vocabulary, "exported": encoder_of(settings, tokenizer, vocabulary, longest)}


def check_lists(run: Run, settings: EmbedderSettings, losses: Weighted, columns: Mapping[str, Any]) -> None:
    """Refuse a list of texts where one belongs, and hard negatives that are no such list, or read otherwise."""
    if listed := next((role for role, column in columns.items() if column.most is not None), ""):
        raise InputError(f"data.columns.{settings.roles[listed]}: must be one text of each row; leave out most")
    if "negatives" not in losses.needs:
        return
    name, positive = settings.negatives, columns.get("positive")
    found: Any = run.data.columns.get(name)
    if positive is None or getattr(found, "most", None) is None:
        raise InputError(f"data.columns.{name}: must be a list of texts, such as {{kind: text, most: 4}}")
    if (found.tokenizer, found.length) != (positive.tokenizer, positive.length):
        raise InputError(f"data.columns.{name}: must have the tokenizer and the length of the positives")


def encoder_of(settings: EmbedderSettings, tokenizer: str, vocabulary: int, longest: int) -> Any:
    """Return shape and weights of an exported decoder; None for another encoder, which is looked at."""
    if not settings.encoder:
        return None
    config = read_exported("settings.encoder", settings.encoder)
    if config.get("trainable") == "decoder":
        check_exported("settings.encoder", settings.encoder, tokenizer, vocabulary, both_ways=True)
        return DecoderShape(**config["shape"]), load(Store(settings.encoder).read("model.safetensors"))
    theirs, wide = config.get("vocab_size", 0), config.get("hidden_size", 0)
    if theirs < vocabulary or wide != settings.width:
        raise InputError(
            f"settings.encoder: must have the {vocabulary} tokens of {tokenizer} and states of settings.width "
            f"({settings.width}) numbers, but {settings.encoder} has {theirs} and {wide}"
        )
    most = config.get("max_position_embeddings") or longest
    if longest > most:
        raise InputError(
            f"data.columns.{settings.query}: length must be at most the {most} positions of settings.encoder, "
            f"got {longest}"
        )
    known = vocabulary_in(settings.encoder)
    if known and known != vocabulary_in(unpackaged("data.columns", tokenizer)):
        raise InputError(
            f"data.columns.{settings.query}: the tokenizer must be that of settings.encoder, "
            f"{settings.encoder}, whose tokens have other numbers than those of {tokenizer}"
        )
    return None


def vocabulary_in(folder: str) -> Any:
    """Return the tokens of a folder's tokenizer, with their numbers; nothing where it has none."""
    if folder in TOKENIZERS or not Store(folder).exists("tokenizer.json"):
        return None
    return json.loads(Store(folder).read("tokenizer.json")).get("model", {}).get("vocab")
