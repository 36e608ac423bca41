"""Small members for the tests of trainables."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from shoal.trainables.batches import Shuffled
from shoal.trainables.distill.encoder import ElasticEncoder
from shoal.trainables.distill.shared import SharedTeacher
from shoal.trainables.distill.spaces import ElasticShape, SubSpace
from shoal.trainables.distill.supernet import DistillRecipe, Relation, SuperNetwork
from shoal.trainables.distill.teachers import Teacher
from shoal.trainables.language import LanguageModel
from shoal.trainables.network import Network
from shoal.trainables.searched_numbers import cross_entropy, dropout
from shoal.trainables.settings import DecoderShape, Recipe

SHAPE = DecoderShape(vocabulary=31, sequence_length=12, layers=2, heads=2, width=16)


class Rows:
    """Batches of one fixed pattern, counted by a cursor."""

    def __init__(self, rows: int = 4) -> None:
        self.rows, self.cursor = rows, 0

    def next(self) -> np.ndarray:
        self.cursor += 1
        columns = np.arange(12)[None, :] * 3 + np.arange(self.rows)[:, None]
        return ((columns + self.cursor) % 31).astype(np.uint16)

    def state(self) -> dict:
        return {"cursor": self.cursor}

    def load(self, state: dict) -> None:
        self.cursor = state["cursor"]


HELD_OUT = {split: {"code": Rows().next(), "law": Rows().next()[:2]} for split in ("validation", "test")}


def language(
    seed: int = 0, shape: DecoderShape = SHAPE, batch: int = 4, kind: str = "adamw", **hyperparameters
):
    recipe = Recipe(steps=40, warmup=4, optimiser=kind)
    return LanguageModel(recipe, hyperparameters, Rows(batch), HELD_OUT, seed, shape=shape)


EXPERTS = replace(SHAPE, experts=3, gate="tanh", active_experts=2)


def gated(seed: int = 0, kind: str = "adamw", **hyperparameters):
    """Return a decoder with experts, whose gate cools by numbers that its seed decides."""
    cooling = {"gate_start": 2.0 + seed, "gate_end": 0.1 + 0.2 * seed, "gate_balance": 0.1 * seed}
    return language(seed, EXPERTS, kind=kind, **cooling | hyperparameters)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        # no bias before the norm: its gradient would be nothing but rounding, which AdamW magnifies
        self.first, self.norm = nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8)
        self.last = nn.Linear(8, 3)

    def forward(self, x, rate):
        return self.last(dropout(self.norm(self.first(x)).relu(), rate, self.training))


class Points(Network):
    """Tells three classes of points apart."""

    def build(self):
        return Classifier()

    def loss(self, module, batch, numbers):
        points, labels = batch
        logits = module(points, numbers["dropout"])
        return cross_entropy(logits, labels, numbers["label_smoothing"])

    def score(self, module, rows):
        points, labels = rows
        logits = module(points, 0.0)
        right = (logits.argmax(dim=-1) == labels).double().mean()
        return right, {"all": cross_entropy(logits, labels).mean()}


_points = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
_labels = _points[:, :3].argmax(axis=1)
POINTS = {"validation": (_points[:16], _labels[:16])}


def points(seed: int = 0, kind: str = "adamw", **hyperparameters) -> Points:
    rows = Shuffled((_points, _labels), batch=8, seed=seed)
    return Points(Recipe(steps=60, warmup=4, optimiser=kind), hyperparameters, rows, POINTS, seed)


def own_points(recipe, hyperparameters, seed, device) -> Points:
    """Make one as a run makes a member of its user's own class."""
    return Points(recipe, hyperparameters, Shuffled((_points, _labels), batch=8, seed=seed), POINTS, seed)


SPACE = SubSpace((1, 2, 3), (1, 2), (16, 24), (1.0, 2.0), layers=3, head_width=8)


def encoder(seed: int = 0, space: SubSpace = SPACE) -> ElasticEncoder:
    """Return a teacher that a space's largest network is as large as, with weights large enough to attend."""
    torch.manual_seed(seed)
    whole = space.whole
    made = ElasticEncoder(
        ElasticShape(31, 12, space.layers, whole.heads, whole.width, whole.inner, space.head_width)
    )
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() == 2:
                weight.normal_(0.0, weight.shape[1] ** -0.5)
    return made


def supernet(seed: int = 0, teacher: SharedTeacher | None = None, space: SubSpace = SPACE, **hyperparameters):
    shared = teacher or SharedTeacher(Teacher(encoder(7)))
    recipe, origin = DistillRecipe(steps=40, warmup=4), encoder(seed + 1)
    return SuperNetwork(
        space, origin, shared, Relation(heads=4), recipe, hyperparameters, Rows(), HELD_OUT, seed
    )


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(equal, first, second))
    if isinstance(first, np.ndarray):
        return np.array_equal(first, second)
    return first == second
