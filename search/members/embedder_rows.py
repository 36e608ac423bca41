"""What must hold for the rows of an embedder before members are made of them."""

from collections.abc import Collection, Mapping
from typing import Any

from shoal.search.config.run import Run
from shoal.search.corpus.text import sample_of
from shoal.search.errors import InputError
from shoal.search.members.column_checks import LOOKED_AT, check_finite_columns
from shoal.trainables.embedder_settings import EmbedderSettings

VECTORS = ("query", "positive", "guide_query", "guide_positive", "negatives", "teacher")  # roles


def check_embedder_rows(run: Run, settings: EmbedderSettings, fields: Collection[str], documents: Any) -> None:
    """Refuse rows, training and held-out ones, that no embedder can look at."""
    samples = {"training": sample_of(run, "train", LOOKED_AT)}
    samples["validation"] = sample_of(run, "validation", run.training.evaluation_rows)
    read = {*settings.read, *fields, "negatives"}
    for split, groups in samples.items():
        for rows in groups.values():
            named = [settings.roles[role] for role in VECTORS if role in read and settings.roles[role] in rows]
            check_are_vectors(rows, named)
            check_finite_columns(rows, named, split)
            if documents is not None:
                check_documents(rows[settings.document], settings.document, len(documents))


def check_are_vectors(rows: Mapping[str, Any], names: Collection[str]) -> None:
    for name in names:
        if rows[name].ndim < 2 or rows[name].dtype.kind not in "biuf":
            raise InputError(
                f"data.columns.{name}: must hold a vector, `{{kind: tensor, shape: [numbers]}}`, or a text, "
                f"`{{kind: text}}`, of each row, for an embedder"
            )


def odd_negatives(
    settings: EmbedderSettings, looked_at: Collection[str], fields: Mapping[str, tuple[int, ...]], texts: bool
) -> str:
    """Return which column beside the hard negatives does not have a number for each of them, or nothing."""
    most = fields.get(settings.negatives, (0,))[0]
    wanted = {} if texts else {"there": (most,)}
    wanted |= {"teacher": (most + 1,)} if "teacher" in looked_at else {}
    for role, shape in wanted.items():
        name = settings.roles[role]
        if settings.negatives in fields and name in fields and fields[name] != shape:
            return (
                f"settings.{role}: the column {name} must have the shape {list(shape)} beside {most} hard "
                f"negatives, got {list(fields[name])}"
            )
    return ""


def check_documents(numbers: Any, name: str, count: int) -> None:
    whole = numbers.ndim == 1 and numbers.dtype.kind in "biu"
    odd = numbers[(numbers < 0) | (numbers >= count)] if whole else numbers[:1]
    if len(odd):
        raise InputError(
            f"settings.document: the column {name} must hold the number of a document in settings.index, a "
            f"whole number from 0 and below {count}, got {odd[0]}"
        )
