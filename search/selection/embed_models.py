"""Exported embedders as scorers: they read vectors or texts in columns."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.cluster.rows import by_field
from shoal.cluster.storage import Store
from shoal.search.config.selection import EmbeddingScore
from shoal.search.config.trainable import SETTINGS
from shoal.search.corpus.manifest import Manifest
from shoal.search.errors import InputError
from shoal.search.exported import read_exported, trainable_of
from shoal.search.selection.corpora import ScoreColumns
from shoal.search.selection.interface import RowScorer, Scoring
from shoal.trainables.embedder_settings import EmbedderSettings


def is_embedder(model: str) -> bool:
    """Say whether a folder holds an exported embedder whose layout is Shoal's own."""
    return trainable_of(model) == "embedder"


def check_embed_model(key: str, model: str, settings: Any, manifest: Manifest) -> None:
    """Raise InputError where an embedder cannot score rows such as a corpus has."""
    if not isinstance(settings, EmbeddingScore):
        raise InputError(f"{key}: {model} is an embedder, which gives embedding, but no {settings.kind}.")
    shapes = {str(name): shape for name, _, shape in manifest.fields or []}
    query = settings_in(read_exported(key, model)).query
    if query not in shapes:
        has = ", ".join(shapes) or "tokens alone"
        raise InputError(f"{key}: {model} looks at the column {query}, but rows have {has}.")


def settings_in(config: dict[str, Any]) -> EmbedderSettings:
    made: EmbedderSettings = SETTINGS["embedder"].model_validate(config.get("settings", {})).build()
    return made


def embed_model_scorer(scoring: Scoring) -> RowScorer:
    """Return what gives each row the embedding of its query's column, of length 1."""
    from safetensors.numpy import load

    from shoal.trainables.embed_judge import EmbedJudge
    from shoal.trainables.settings import DecoderShape

    key, folder = f"{scoring.key}.model", scoring.settings.model
    settings = settings_in(read_exported(key, folder))
    # only the shape is read of the decoder that its encoder began as
    began = read_exported(f"{key}: settings.encoder", settings.encoder) if settings.encoder else {}
    shape = DecoderShape(**began["shape"]) if began else None
    judge = EmbedJudge(settings, load(Store(folder).read("model.safetensors")), shape, scoring.device)

    def score(rows: Any, ids: NDArray[np.int64]) -> ScoreColumns:
        try:
            return {scoring.settings.column: judge.embeddings(by_field(rows)[settings.query])}
        except (ValueError, RuntimeError) as error:  # torch's, where vectors have another size
            said = str(error).strip().splitlines()[-1].strip()
            raise InputError(f"{key}: the column {settings.query} does not fit {folder}: {said}") from error

    return score
