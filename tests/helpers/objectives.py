"""What an objective is given, made at random for every kind at once."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from shoal.trainables.objectives.interface import NamedLoss, Sizes
from shoal.trainables.objectives.kinds import OBJECTIVES

SIZES = Sizes(classes=4, rows=6, groups=3, features=5)
# settings under which each number of a kind has an effect
VARIED: dict[str, list[dict[str, Any]]] = {
    "dice": [{"alpha": 0.1}, {"form": "batch", "alpha": 0.5}, {"alpha": 0.1, "detach": False, "squared": True}],
    "contrastive": [
        {"temperature": 0.3, "gamma": 0.5},
        {"form": "decoupled", "spread": 0.5},
        {"blocks": "all", "scaled": True},
    ],
    "dpo": [
        {"flipped": 0.1, "sft": 0.2},
        {"form": "hinge", "sft": 0.1},
        {"form": "squared"},
        {"form": "negative", "sft": 0.1},
    ],
    "guided": [{"margin": -0.5, "temperature": 0.3}, {"margin": 0.2, "queries": False}],
    "loki": [{}, {"distances": ((0, 1, 2, 3), (1, 0, 1, 2), (2, 1, 0, 1), (3, 2, 1, 0))}],
    "shrunk_classes": [{"threshold": 0.5}],
    "individual_temperatures": [{"rows": 9}],
    "arbitrary_pairs": [{"temperature": 0.5, "penalty": 0.1}],
    "hard_negatives": [{"mixed": 0.5, "temperature": 0.3}, {"gamma": 0.5, "temperature": 0.3}],
    "adore": [{"depth": 4, "cut": 3}],
    "worst_rows": [{}, {"ascents": 2}],
    "robust_rows": [{"unlabelled": 0.5}],
    "future_teacher": [{"threshold": 0.4}],
    "label_proportions": [{"sureness": 0.1}],
    "naive_bayes": [{"forget": 0.1}],
    "forget": [{"groups": ("one",)}, {"groups": ("one",), "form": "negative"}],
}
CASES = [(kind, given) for kind in OBJECTIVES for given in VARIED.get(kind, [{}])]


def made(case: tuple[str, Mapping[str, Any]]) -> NamedLoss:
    return OBJECTIVES[case[0]](**case[1])


def given(seed: int = 0, rows: int = SIZES.rows, kind: torch.dtype = torch.float64) -> tuple[dict, dict]:
    """Return what a module may return, and a batch."""
    draws = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draws, dtype=torch.float64).to(kind)

    classes, groups = SIZES.classes, SIZES.groups
    out = {name: normal(rows, classes) for name in ("logits", "plain", "auxiliary")}
    out |= {name: normal(rows, 5) for name in ("embedding", "view", "features")}
    out |= {"gate": normal(rows, 5).sigmoid(), "negatives": normal(rows, 3, 5), "found": normal(rows, 7)}
    out |= {
        "draws": normal(rows, 3).sigmoid(),
        "moved": normal(rows).square(),
        "teacher": normal(rows, classes),
    }
    out["heads"] = normal(rows, groups, classes)
    for name in ("chosen", "rejected"):
        out |= {name: -normal(rows).abs() - 3, f"{name}_reference": -normal(rows).abs() - 3}
        out[f"{name}_hinge"] = 2 * normal(rows).sigmoid()
        out[f"{name}_length"] = torch.randint(2, 9, (rows,), generator=draws).to(kind)
    for name in ("nats", "hidden_nats", "total", "reference"):
        out[name] = normal(rows).abs() + 1
    out["hinge"] = 2 * normal(rows).sigmoid()
    batch = {
        "label": torch.randint(classes, (rows,), generator=draws),
        "group": torch.randint(groups, (rows,), generator=draws),
        "unlabelled": torch.arange(rows) % 2,
        "guide_query": normal(rows, 3),
        "guide_positive": normal(rows, 3),
        "row": torch.randperm(9, generator=draws)[:rows],
        "document": torch.randint(7, (rows,), generator=draws),
        "bag": torch.randint(3, (rows,), generator=draws),
        "shares": normal(rows, classes).softmax(dim=-1),
        "forget": torch.arange(rows) % 2,
        "there": torch.tensor([[1.0, 1.0, 0.0]]).repeat(rows, 1).to(kind),
        "teacher": normal(rows, 4),
    }
    batch["partner"] = batch["label"].roll(1)
    return out, batch


def numbers_of(objective: NamedLoss) -> dict[str, float]:
    return {name: float(getattr(objective, name)) for name in objective.searched}


def begun(objective: NamedLoss, kind: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Return a state that one step has made: a first one may hide what it does."""
    out, batch = given(seed=9, kind=kind)
    state = {name: value.to(kind) for name, value in objective.start(SIZES).items()}
    _, signals = objective.loss(out, batch, numbers_of(objective), state)
    return dict(objective.after(state, signals, numbers_of(objective)))
