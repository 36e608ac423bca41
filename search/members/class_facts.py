"""What a run knows of the rows of its classifiers: their columns, classes, shares and scales."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shoal.search.config.objective import classes_told, inputs_among, lacking_column
from shoal.search.config.run import Run
from shoal.search.corpus.build import load_corpus
from shoal.search.corpus.text import sample_of
from shoal.search.errors import InputError
from shoal.search.members.column_checks import LOOKED_AT, check_finite_columns, check_judged, check_roles
from shoal.trainables.class_networks import network_inputs, sees_images
from shoal.trainables.classifier import ClassFacts
from shoal.trainables.classifier_settings import ClassifierSettings
from shoal.trainables.objectives.weighted import Weighted

# an input of less deviation than this, of the largest one of its column, is a constant
LEAST_SPREAD = 1e-3
FLOAT_STEP = 1e-7  # numbers of float32 are so far apart, as a share of themselves


def facts_of(run: Run, settings: ClassifierSettings, losses: Weighted) -> ClassFacts:
    """Return the facts; raises InputError for rows that lack what is asked for."""
    columns = [str(field[0]) for field in load_corpus(run.data).fields]
    if problem := lacking_column(settings, losses, columns):
        raise InputError(problem)
    sample = sample_of(run, "train", LOOKED_AT)
    rows = {name: np.concatenate([each[name] for each in sample.values()]) for name in columns}
    classes = classes_told(settings, run.data.columns)
    names = inputs_among(settings, columns)
    check_roles(rows, settings, losses.fields, classes)
    check_seen(run, settings, names, rows)
    centre, spread = scale_of(rows, names, sees_images(settings))
    return ClassFacts(
        inputs=names,
        columns=tuple(columns),
        classes=classes,
        groups=sources_in(run, settings, rows) if "group" in losses.fields else 0,
        rows=run.training.batch,
        prior=prior_of(rows, settings, classes),
        centre=centre,
        spread=spread,
    )


def sources_in(run: Run, settings: ClassifierSettings, rows: Mapping[str, Any]) -> int:
    """Return how many sources rows may have: as many as are named, also if the sample lacks some."""
    named = len(getattr(run.data.columns.get(settings.group), "names", None) or ())
    return max(named, int(rows[settings.group].max()) + 1)


def check_seen(run: Run, settings: ClassifierSettings, names: tuple[str, ...], rows: Mapping[str, Any]) -> None:
    """Refuse rows, training and held-out ones, that no classifier can look at or be judged by."""
    check_finite_columns(rows, names, "training")
    judged = sample_of(run, "validation", run.training.evaluation_rows)
    for group in judged.values():
        check_finite_columns(group, names, "validation")
    targets = run.mixing.unseen if run.mixing is not None and run.mixing.unseen else tuple(judged)
    check_judged([judged[name] for name in targets], settings)


def prior_of(rows: Mapping[str, Any], settings: ClassifierSettings, classes: int) -> Tensor:
    """Return the share of each class among the rows of a known label."""
    labels = rows[settings.label].astype(np.int64)
    if settings.unlabelled in rows:
        labels = labels[rows[settings.unlabelled] == 0]
    if not classes:
        raise InputError(f"settings.classes: is required, since the column {settings.label} names no labels")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        odd = int(labels.max() if labels.max() >= classes else labels.min())
        raise InputError(
            f"settings.classes: must be above every label, but it is {classes}, and {settings.label} has {odd}"
        )
    counts = np.bincount(labels, minlength=classes) + 1.0  # a class that the sample lacks is not impossible
    return torch.from_numpy(counts / counts.sum()).float()


def scale_of(rows: Mapping[str, Any], names: tuple[str, ...], images: bool) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of the inputs: of each number of a table, of each channel of images."""
    for name in names:
        if rows[name].dtype.kind not in "biuf":
            raise InputError(f"settings.inputs: {name} holds no numbers; leave it out of the inputs")
    if images and (len(names) > 1 or rows[names[0]].ndim not in (3, 4)):
        shape = f" of shape {list(rows[names[0]].shape[1:])}" if len(names) == 1 else ""
        raise InputError(
            f"settings.network: needs one column of images, [height, width] or [height, width, channels], got "
            f"{', '.join(names)}{shape}"
        )
    tensors = {name: torch.from_numpy(rows[name]) for name in names}
    axes = (0, 2, 3) if images else (0,)
    found = [network_inputs(tensors, [name], images).double() for name in names]
    centre = torch.cat([each.mean(dim=axes) for each in found])
    # columns may have other units, so each has a largest deviation of its own
    spread = torch.cat([divisors(each.std(dim=axes, unbiased=False), each.mean(dim=axes)) for each in found])
    centre, spread = centre.float(), spread.float()
    return (centre[:, None, None], spread[:, None, None]) if images else (centre, spread)


def divisors(spread: Tensor, centre: Tensor) -> Tensor:
    """Return by what the numbers of one column are divided: their deviations, or at least 1 for a constant."""
    rounding = FLOAT_STEP * centre.abs()
    varies = (spread > LEAST_SPREAD * spread.max()) & (spread > rounding)
    return torch.where(varies, spread, spread.clamp(min=1.0))
