"""What must hold for the columns of a classifier's or an embedder's rows before members are made of them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.search.errors import InputError
from shoal.trainables.classifier_settings import ClassifierSettings

NUMBERED_ROLES = ("label", "group", "unlabelled", "row", "bag")  # roles whose columns hold whole numbers
LOOKED_AT = 1024  # training rows of each group that are looked at
MOST_GROUPS = 1000  # each has a head of its own
SUMS = 1e-2  # shares of a bag that were rounded still sum to 1 within this

NamedColumns = Mapping[str, Any]  # name -> (rows, ...)


def check_finite_columns(rows: NamedColumns, names: Collection[str], split: str) -> None:
    """Refuse inputs that are no numbers, infinite, or beyond float32: one alone spoils a member."""
    for name in names:
        values: NDArray[Any] = rows[name]
        if values.dtype.kind != "f":
            continue
        with np.errstate(over="ignore"):
            odd = ~np.isfinite(values.astype(np.float32)).reshape(len(values), -1)
        if odd.any():
            raise InputError(
                f"data.columns.{name}: must hold finite numbers of float32, but {odd.any(axis=1).sum():,} of "
                f"{len(values):,} {split} rows that were looked at hold "
                f"{values.reshape(len(values), -1)[odd][0]}; leave such rows out, or put a number in their "
                f"place"
            )


def check_roles(
    rows: NamedColumns, settings: ClassifierSettings, fields: Collection[str], classes: int
) -> None:
    """Refuse columns of labels, sources and bags that cannot be such."""
    for role in NUMBERED_ROLES:
        name = settings.roles[role]
        if name in rows and role in {"label", "unlabelled", *fields}:
            check_numbered(rows[name], name, role)
    if "group" in fields and (highest := int(rows[settings.group].max())) >= MOST_GROUPS:
        raise InputError(
            f"settings.group: each group has a head of its own, so numbers in {settings.group} must be below "
            f"{MOST_GROUPS}, got {highest}; number the groups from 0 on"
        )
    if "shares" in fields:
        check_shares(rows[settings.shares], settings.shares, classes)


def check_numbered(values: NDArray[Any], name: str, role: str) -> None:
    numbers = values.ndim == 1 and values.dtype.kind in "biuf"
    if numbers and (values >= 0).all() and (values == np.floor(values)).all():
        return
    got = f"{values[~((values >= 0) & (values == np.floor(values)))][0]}" if numbers else f"{values.dtype}"
    got = got if values.ndim == 1 else f"the shape {list(values.shape[1:])}"
    raise InputError(
        f"settings.{role}: the column {name} must hold a whole number from 0 on, or be of `kind: class`, "
        f"got {got}"
    )


def check_shares(shares: NDArray[Any], name: str, classes: int) -> None:
    if shares.shape[1:] != (classes,):
        raise InputError(
            f"settings.shares: the column {name} must hold a share of each of {classes} classes, "
            f"`{{kind: tensor, shape: [{classes}]}}`, got the shape {list(shares.shape[1:])}"
        )
    wrong = (shares < 0).any(axis=1) | (abs(shares.sum(axis=1) - 1) > SUMS)
    if wrong.any():
        raise InputError(
            f"settings.shares: the shares in {name} must be at least 0 and sum to 1 in each row, got "
            f"{[round(float(each), 4) for each in shares[wrong][0]]}"
        )


def check_judged(groups: Sequence[NamedColumns], settings: ClassifierSettings) -> None:
    """Refuse a score that the held-out rows cannot give: all members would have the same one."""
    if settings.score not in ("auroc", "few_shot"):
        return
    label, unlabelled = settings.label, settings.unlabelled
    known = [rows[label][rows[unlabelled] == 0] if unlabelled in rows else rows[label] for rows in groups]
    _, counts = np.unique(np.concatenate(known), return_counts=True)
    least = settings.shots + 1 if settings.score == "few_shot" else 1
    if (there := int((counts >= least).sum())) < 2:
        raise InputError(
            f"settings.score: {settings.score} needs validation rows of at least 2 classes, {least} of each, "
            f"but {sum(counts):,} rows with a label have {there} such classes; hold out more (data.validation, "
            f"training.evaluation_rows), or use another score"
        )
