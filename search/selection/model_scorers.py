"""Scores by models: losses, states, gradients, influence, and what heads that look facts up are worth."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.cluster.rows import by_field
from shoal.cluster.storage import Store
from shoal.search.config.selection import ChesScore, ClassScore, EmbeddingScore
from shoal.search.corpus.manifest import Manifest
from shoal.search.errors import InputError
from shoal.search.models import config_of, local_folder
from shoal.search.selection.class_models import check_class_model, class_model_scorer, is_classifier
from shoal.search.selection.corpora import ScoreColumns
from shoal.search.selection.embed_models import check_embed_model, embed_model_scorer, is_embedder
from shoal.search.selection.interface import RowScorer, Scoring, loss_difference, tokens_of
from shoal.search.selection.language import (
    CAUSAL,
    CLASSES,
    STATES,
    Reader,
    check_readable,
    open_reader,
)
from shoal.search.selection.queries import read_queries


def reader_of(scoring: Scoring, name: str = "model", kind: str = CAUSAL) -> Reader:
    model = getattr(scoring.settings, name)
    return open_reader(f"{scoring.key}.{name}", model, scoring.tokenizer, scoring.length, scoring.device, kind)


def loss_scorer(scoring: Scoring) -> RowScorer:
    from shoal.trainables.scoring import row_losses

    if is_classifier(scoring.settings.model):
        return class_model_scorer(scoring)
    reader = reader_of(scoring)
    column = scoring.settings.column
    return lambda rows, ids: {column: reader.judge(tokens_of(rows, scoring.key, answers=True), row_losses)}


def difference_scorer(scoring: Scoring) -> RowScorer:
    from shoal.trainables.scoring import row_losses

    settings, key = scoring.settings, scoring.key
    if is_classifier(settings.model):
        return class_model_scorer(scoring)
    model, base = reader_of(scoring), reader_of(scoring, "base")

    def score(rows: Any, ids: NDArray[np.int64]) -> ScoreColumns:
        tokens = tokens_of(rows, key, answers=True)
        first, second = (each.judge(tokens, row_losses) for each in (model, base))
        return {settings.column: loss_difference(first, second, settings.relative)}

    return score


def embedding_scorer(scoring: Scoring) -> RowScorer:
    from shoal.trainables.scoring import row_states

    if is_classifier(scoring.settings.model):
        return class_model_scorer(scoring)
    if is_embedder(scoring.settings.model):
        return embed_model_scorer(scoring)
    reader, key = reader_of(scoring, kind=STATES), scoring.key
    return lambda rows, ids: {
        scoring.settings.column: reader.judge(tokens_of(rows, key, answers=True), row_states)
    }


def gradient_scorer(scoring: Scoring) -> RowScorer:
    from shoal.trainables.scoring import row_sketches

    reader, width = reader_of(scoring), scoring.settings.width

    def sketches(module: Any, rows: NDArray[Any]) -> NDArray[np.float32]:
        return row_sketches(module, rows, width)

    return lambda rows, ids: {
        scoring.settings.column: reader.judge(tokens_of(rows, scoring.key, answers=True), sketches)
    }


def class_scorer(scoring: Scoring) -> RowScorer:
    from shoal.trainables.scoring import class_chances

    settings = scoring.settings
    if is_classifier(settings.model):
        return class_model_scorer(scoring)
    reader = reader_of(scoring, kind=CLASSES)
    place = class_place(scoring)

    def chances(module: Any, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        return class_chances(module, rows, place)

    return lambda rows, ids: {settings.column: reader.judge(tokens_of(rows, scoring.key), chances)}


def ches_scorer(scoring: Scoring) -> RowScorer:
    from shoal.trainables.pretrained.ches import pair_scores

    settings, reader = scoring.settings, reader_of(scoring, kind=STATES)
    if reader.encode is not None:
        raise InputError(
            f"{scoring.key}.model: must have the corpus's own tokenizer, since of an answer only tokens are "
            f"known; set data.tokenizer to {settings.model}."
        )

    def score(rows: Any, ids: NDArray[np.int64]) -> ScoreColumns:
        fields = by_field(rows)
        if "rejected_mask" not in fields:
            raise InputError(f"{scoring.key}: ches looks at pairs of answers; give data.format: preference.")
        return {settings.column: pair_scores(reader.module, fields, settings.normalised)}

    return score


def class_place(scoring: Scoring) -> int:
    """Return the number of the class that a classifier is asked for; raises InputError if it has none such."""
    key, label = scoring.key, scoring.settings.label
    config = config_of(local_folder(f"{key}.model", scoring.settings.model), f"{key}.model")
    names = {int(number): name for number, name in config.get("id2label", {0: "no", 1: "yes"}).items()}
    for number, name in names.items():
        if label in (number, name):
            return number
    known = ", ".join(f"{number} ({name})" for number, name in sorted(names.items()))
    raise InputError(f"{key}.label: must be a class of {scoring.settings.model}: {known}, got {label}.")


def influence_scorer(scoring: Scoring) -> RowScorer:
    """Score rows by queries that were solved beforehand: `scoring.fitted` names their file in the corpus."""
    from shoal.trainables.influence.ekfac import influences, rows_at_once
    from shoal.trainables.influence.likelihoods import NextTokens
    from shoal.trainables.influence.traces import traced_layers
    from shoal.trainables.scoring import passes

    settings, (store, file) = scoring.settings, scoring.fitted
    over = getattr(np, settings.over)
    reader, targets = reader_of(scoring), read_queries(Store(store), file, scoring.device)
    likelihood, layers = NextTokens(reader.module), traced_layers(reader.module, settings.layers)
    at_once = rows_at_once(layers)

    def scores(module: Any, rows: NDArray[Any]) -> NDArray[np.float32]:
        found = [scored(part) for _, part in passes(module, rows, at_once)]
        return np.concatenate(found)

    def scored(tokens: Any) -> NDArray[np.float32]:
        each = [influences(likelihood, layers, queries, tokens) for queries in targets]
        columns = np.stack([over(found.float().cpu().numpy(), axis=1) for found in each], axis=1)
        return columns if len(targets) > 1 else columns[:, 0]

    def score(rows: Any, ids: NDArray[np.int64]) -> ScoreColumns:
        return {settings.column: reader.judge(tokens_of(rows, scoring.key, answers=True), scores)}

    return score


def head_scorer(scoring: Scoring) -> RowScorer:
    from shoal.trainables.retrieval_heads import attending_to_all
    from shoal.trainables.scoring import row_losses

    settings, heads = scoring.settings, scoring.fitted
    reader = reader_of(scoring)

    def score(rows: Any, ids: NDArray[np.int64]) -> ScoreColumns:
        tokens = tokens_of(rows, scoring.key)
        base = reader.judge(tokens, row_losses)
        with attending_to_all(reader.module, heads):
            without = reader.judge(tokens, row_losses)
        return {settings.column: loss_difference(without, base, relative=True)}

    return score


def models_of(settings: Any) -> dict[str, str]:
    """Return key -> folder of the models that a score looks at."""
    return {key: getattr(settings, key) for key in ("model", "base") if hasattr(settings, key)}


def has_tokens(manifest: Manifest) -> bool:
    return "tokens" in {str(field[0]) for field in manifest.fields}


def check_models(settings: Any, key: str, manifest: Manifest) -> None:
    """Raise InputError where a model is not there, or cannot read the corpus's rows."""
    kind = CLASSES if isinstance(settings, ClassScore) else CAUSAL
    kind = STATES if isinstance(settings, EmbeddingScore | ChesScore) else kind
    models = models_of(settings)
    if len(models) == 2 and is_classifier(models["model"]) != is_classifier(models["base"]):
        raise InputError(f"{key}.base: must be a classifier where model is one, and none where it is none.")
    for name, model in models.items():
        if is_classifier(model):
            check_class_model(f"{key}.{name}", model, settings, manifest)
            continue
        if is_embedder(model):
            check_embed_model(f"{key}.{name}", model, settings, manifest)
            continue
        if manifest.fields and not has_tokens(manifest) and not isinstance(settings, ChesScore):
            raise InputError(f"{key}.{name}: must be an exported classifier to read columns, got {model}.")
        check_readable(f"{key}.{name}", model, manifest.tokenizer, manifest.vocabulary, kind)
