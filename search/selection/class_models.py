"""Exported classifiers as scorers: they read rows of columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from shoal.cluster.rows import by_field
from shoal.cluster.storage import Store
from shoal.search.config.kinds import AnyObjectives
from shoal.search.config.objective import USUAL, inputs_among
from shoal.search.config.selection import ClassScore, DifferenceScore, EmbeddingScore, LossScore
from shoal.search.config.trainable import SETTINGS
from shoal.search.corpus.manifest import Manifest
from shoal.search.errors import InputError
from shoal.search.exported import read_exported, trainable_of
from shoal.search.selection.corpora import ScoreColumns
from shoal.search.selection.interface import RowScorer, Scoring, loss_difference
from shoal.trainables.classifier_settings import ClassifierSettings

if TYPE_CHECKING:
    from shoal.trainables.objectives.weighted import Weighted

SCORED = LossScore | DifferenceScore | ClassScore | EmbeddingScore
CAN = "a classifier gives loss, difference, class and embedding"


def is_classifier(model: str) -> bool:
    """Say whether a folder holds an exported classifier."""
    return trainable_of(model) == "classifier"


def check_class_model(key: str, model: str, settings: Any, manifest: Manifest) -> None:
    """Raise InputError where a classifier cannot score rows such as a corpus has."""
    columns = [str(field[0]) for field in manifest.fields or []]
    if not columns or {"tokens", "segment"} <= set(columns):
        raise InputError(f"{key}: {model} is a classifier, which reads columns, but the rows are tokens.")
    if not isinstance(settings, SCORED):
        raise InputError(f"{key}: {CAN}, but no {settings.kind}.")
    config = read_exported(key, model)
    own = class_settings(config)
    looked_at = (
        *(config.get("inputs") or own.inputs),
        *([own.label] if isinstance(settings, LossScore | DifferenceScore) else []),
    )
    for name in looked_at:
        if name not in columns:
            raise InputError(f"{key}: {model} looks at the column {name}, but rows have {', '.join(columns)}.")
    if isinstance(settings, ClassScore):
        class_number(key, settings.label, config)


def class_settings(config: dict[str, Any]) -> ClassifierSettings:
    made: ClassifierSettings = SETTINGS["classifier"].model_validate(config.get("settings", {})).build()
    return made


def objective_in(config: dict[str, Any]) -> Weighted:
    """Return the objective that an exported classifier was trained by."""
    from shoal.trainables.objectives.kinds import OBJECTIVES
    from shoal.trainables.objectives.weighted import weighted_sum

    given = TypeAdapter(AnyObjectives).validate_python(config.get("objective") or [])
    usual = USUAL["classifier"]
    return weighted_sum([(each.kind, each.build()) for each in given] or [(usual, OBJECTIVES[usual]())])


def class_number(key: str, label: str | int, config: dict[str, Any]) -> int:
    """Return the number of a class by its name or number."""
    names = config.get("classes")
    if isinstance(label, int) and (names is None or 0 <= label < len(names)):
        return label
    if names and label in names:
        return int(names.index(label))
    known = (
        f"one of {', '.join(map(str, names))}, or its number"
        if names
        else "a number: its classes have no names"
    )
    raise InputError(f"{key.rpartition('.')[0]}.label: must be {known}, got {label}.")


def class_model_scorer(scoring: Scoring) -> RowScorer:
    """Return what scores rows of columns by an exported classifier, or by two."""
    from safetensors.numpy import load

    from shoal.trainables.class_judge import ClassJudge

    settings = scoring.settings

    def opened(name: str, columns: tuple[str, ...]) -> Any:
        folder = getattr(settings, name)
        config = read_exported(f"{scoring.key}.{name}", folder)
        own, weights = class_settings(config), load(Store(folder).read("model.safetensors"))
        # rows may have other columns too, or the same ones in another order
        inputs = tuple(config.get("inputs") or inputs_among(own, columns))
        return ClassJudge(own, objective_in(config), weights, inputs, scoring.device)

    judges: dict[str, Any] = {}

    def score(rows: Any, ids: NDArray[np.int64]) -> ScoreColumns:
        columns = by_field(rows)
        for name in ("model", "base"):
            if hasattr(settings, name) and name not in judges:
                judges[name] = opened(name, tuple(columns))
        return judged(scoring, judges, columns)

    return score


def judged(scoring: Scoring, judges: dict[str, Any], columns: dict[str, NDArray[Any]]) -> ScoreColumns:
    settings, model = scoring.settings, judges["model"]
    if isinstance(settings, EmbeddingScore):
        return {settings.column: model.states(columns)}
    if isinstance(settings, ClassScore):
        key = f"{scoring.key}.model"
        place = class_number(key, settings.label, read_exported(key, settings.model))
        if not 0 <= place < model.classes:
            raise InputError(f"{scoring.key}.label: must be below {model.classes} classes, got {place}.")
        return {settings.column: model.chances(columns)[:, place]}
    losses = model.losses(columns)
    if isinstance(settings, LossScore):
        return {settings.column: losses}
    return {settings.column: loss_difference(losses, judges["base"].losses(columns), settings.relative)}
