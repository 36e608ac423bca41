"""Small classifiers for tests: points of three classes in two groups, one of which may have unknown labels."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from shoal.trainables.batches import Shuffled
from shoal.trainables.classifier import ClassFacts, Classifier
from shoal.trainables.classifier_settings import ClassifierSettings
from shoal.trainables.objectives.kinds import OBJECTIVES
from shoal.trainables.objectives.weighted import weighted_sum
from shoal.trainables.settings import Recipe


def points(seed: int, rows: int = 48, shape: tuple[int, ...] = (6,)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(3, size=rows)
    centres = np.random.default_rng(99).normal(size=(3, *shape))
    return {
        "x": (centres[label] + 0.7 * rng.normal(size=(rows, *shape))).astype(np.float32),
        "label": label.astype(np.int64),
        "group": rng.integers(2, size=rows).astype(np.int64),
        "unlabelled": (rng.random(rows) < 0.3).astype(np.int64),
        **bags(label),
        "row": np.arange(rows),
    }


def bags(label: np.ndarray) -> dict[str, np.ndarray]:
    """Return bags of six rows, and the shares of the three classes in each."""
    bag = np.arange(len(label)) // 6
    shares = np.stack([np.bincount(label[bag == each], minlength=3) for each in range(bag.max() + 1)]) / 6
    return {"bag": bag, "shares": shares[bag].astype(np.float32)}


def classifier(
    objective: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    hyperparameters: Mapping[str, Any] | None = None,
    shape: tuple[int, ...] = (6,),
    rescaling: Any = None,
    **settings: Any,
) -> Classifier:
    terms = [(kind, OBJECTIVES[kind](**given)) for kind, given in (objective or {"cross_entropy": {}}).items()]
    chosen = ClassifierSettings(**{"width": 8, "layers": 1, **settings})
    channels = shape[0] if len(shape) == 3 else 1
    size = (channels, 1, 1) if chosen.network in ("conv", "timm") else (int(np.prod(shape)),)
    facts = ClassFacts(
        inputs=("x",),
        columns=("x", "label", "group", "unlabelled"),
        classes=3,
        groups=2,
        rows=8,
        prior=torch.tensor([0.2, 0.3, 0.5]),
        centre=torch.zeros(size),
        spread=torch.ones(size),
    )
    held_out = {"one": points(7, shape=shape), "two": points(8, shape=shape)}
    return Classifier(
        Recipe(steps=40, warmup=2, learning_rate=0.02),
        dict(hyperparameters or {}),
        Shuffled(points(1, shape=shape), batch=8, seed=seed),
        {"validation": held_out, "test": held_out},
        seed,
        settings=chosen,
        losses=weighted_sum(terms),
        facts=facts,
        rescaling=rescaling,
    )
