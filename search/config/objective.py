"""What a run's file says of the loss of a built-in class and of its constants, as the class takes it."""

from collections.abc import Collection
from typing import Any

from shoal.search.config.run import Run
from shoal.search.config.trainable import SETTINGS
from shoal.search.errors import nearest
from shoal.trainables.classifier_settings import ClassifierSettings
from shoal.trainables.embedder_settings import EmbedderSettings
from shoal.trainables.objectives.kinds import OBJECTIVES
from shoal.trainables.objectives.weighted import Weighted, weighted_sum

USUAL = {
    "classifier": "cross_entropy",
    "preference": "dpo",
    "embedder": "contrastive",
}  # the objective of a class whose file names none


def objective_of(run: Run) -> Weighted | None:
    """Return the objective of members that need none: those of language models."""
    return objectives_of(run) if run.objective else None


def objectives_of(run: Run) -> Weighted:
    """Return the objective of a run's members."""
    given = [(section.kind, section.build()) for section in run.objective]
    if given:
        return weighted_sum(given)
    usual = USUAL[run.trainable]
    return weighted_sum([(usual, OBJECTIVES[usual]())])


def class_settings(run: Run) -> ClassifierSettings:
    made: ClassifierSettings = SETTINGS["classifier"].model_validate(run.settings).build()
    return made


def embedder_settings(run: Run) -> EmbedderSettings:
    made: EmbedderSettings = SETTINGS["embedder"].model_validate(run.settings).build()
    return made


def lacking_vector(settings: EmbedderSettings, losses: Weighted, columns: Collection[str]) -> str:
    """Return which column an embedder asks for that rows of these columns lack, or nothing."""
    needed = [*settings.read, *(["negatives"] if "negatives" in losses.needs else [])]
    for role in (*needed, *sorted(losses.fields & settings.roles.keys())):
        if settings.roles[role] not in columns:
            had = f"and rows have {', '.join(columns)}"
            return f"settings.{role}: names a column, but there is no {settings.roles[role]}, {had}"
    if "found" in losses.needs and not settings.index:
        named = next(kind for kind, term in losses.terms.items() if "found" in term.needs)
        return f"settings.index: is required by objective {named}: a .npy file of the documents' vectors"
    return ""


def lacking_column(settings: ClassifierSettings, losses: Weighted, columns: Collection[str]) -> str:
    """Return which column a classifier asks for that rows of these columns lack, or nothing."""
    had = f", and rows have {', '.join(columns)}"
    roles = settings.roles
    for role in sorted({"label"} | losses.fields & roles.keys()):
        if roles[role] not in columns:
            own = "the label" if role == "label" else f"`{role}`, at which the objective looks"
            return f"settings.{role}: names the column of {own}, but there is no {roles[role]}{had}"
    for name in settings.inputs:
        if name not in columns:
            return f"settings.inputs: no such column{nearest(name, columns)}{had}"
        if name == settings.label:
            return f"settings.inputs: must leave out {name}, the column of the label, which is to be found"
        if settings.inputs.count(name) > 1:
            return f"settings.inputs: must name each column once, got {name} twice"
    if not inputs_among(settings, columns):
        return f"settings.inputs: no column is left for the network to see{had}"
    return ""


def inputs_among(settings: ClassifierSettings, columns: Collection[str]) -> tuple[str, ...]:
    """Return the columns that the network sees: those that are given, or all that have no role."""
    return settings.inputs or tuple(name for name in columns if name not in settings.roles.values())


def classes_told(settings: ClassifierSettings, columns: dict[str, Any]) -> int:
    """Return the number of classes that settings or the label's column say; 0 if neither does."""
    names = getattr(columns.get(settings.label), "names", None)
    return settings.classes or len(names or ())
