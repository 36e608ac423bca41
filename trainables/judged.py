"""How held-out rows judge a member: its loss on them, its score, and what else its class measures."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from shoal.trainables.arrays import pieces, to_tensors
from shoal.trainables.precision import computing
from shoal.trainables.searched_numbers import FloatOrTensor
from shoal.trainables.settings import Recipe

# with these numbers rows are judged: what only training uses must not count in a score
SOBER = {"dropout": 0.0, "label_smoothing": 0.0, "z_loss": 0.0}
JUDGED_TOGETHER = 64  # held-out rows in one pass


class Judged(ABC):
    """The part of a Network that judges: no searched number is part of what it finds."""

    takes: ClassVar[Set[str]] = frozenset()  # kinds of rows: tokens, instruction, preference, columns
    by_row: ClassVar[bool] = False  # whether `loss` returns the loss of each row
    targets: Sequence[str] | None = None  # groups whose losses make the score; all by default
    module: nn.Module
    recipe: Recipe
    device: torch.device
    held_out: Mapping[str, Any]  # split -> rows; by group where the class takes rows
    sober: Mapping[str, float]  # numbers without what only training uses
    loss_errors: Mapping[str, float] = MappingProxyType({})  # standard errors of the losses last evaluated

    @abstractmethod
    def loss(self, module: nn.Module, batch: Any, numbers: Mapping[str, FloatOrTensor]) -> Tensor:
        """Return the training loss of a batch, whose arrays are now tensors: `(rows,)`, or one scalar.

        A sampling policy or a mixing policy needs the loss of each row.
        """

    def computing(self) -> AbstractContextManager[None]:
        """Return the context of a forward pass and its loss, in the recipe's precision."""
        return computing(self.recipe.precision, self.device)

    def score(self, module: nn.Module, rows: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the score (higher is better) on held-out rows, and the loss per group: all scalars.

        By default the rows are in groups, and the score is minus the mean of the target groups' mean losses.
        """
        return self.judge_by(self.row_losses(module, rows))

    def judge_by(self, by_row: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the score by default, and the loss per group, of the losses of the groups' rows."""
        losses = {group: each.mean().double() for group, each in by_row.items()}
        chosen = losses if self.targets is None else self.targets
        return -torch.stack([losses[group] for group in chosen]).mean(), losses

    def judge(self, module: nn.Module, rows: Any) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Return the score, the loss per group, and its standard error over rows where that is known.

        A class with a `score` of its own does not say the losses of rows.
        """
        if type(self).score is not Judged.score:
            return *self.score(module, rows), {}
        by_row = self.row_losses(module, rows)
        several = {group: each.double() for group, each in by_row.items() if len(each) > 1}
        errors = {group: each.std() / len(each) ** 0.5 for group, each in several.items()}
        return *self.judge_by(by_row), errors

    def row_losses(self, module: nn.Module, rows: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the loss of each held-out row by group, `(rows,)`; no hyperparameter is part of it."""
        return {
            group: torch.cat([self.loss(module, part, self.sober) for part in pieces(each, JUDGED_TOGETHER)])
            for group, each in rows.items()
        }

    def parts(self, module: nn.Module, batch: Any) -> Tensor:
        """Return the losses of each row `(rows, parts)` in which it is compared with a reference: here one."""
        return self.loss(module, batch, self.sober)[:, None]

    def losses_and_parts(
        self, module: nn.Module, batch: Any, numbers: Mapping[str, FloatOrTensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the training loss of each row `(rows,)`, and its `parts` without gradients and dropout."""
        losses = self.loss(module, batch, numbers)
        module.eval()
        with torch.no_grad():
            parts = self.parts(module, batch)
        module.train()
        return losses, parts

    def evaluate(self, split: str = "validation") -> tuple[float, dict[str, float]]:
        if split not in self.held_out:
            return math.nan, {}
        self.module.eval()
        with torch.no_grad(), self.computing():
            score, losses, errors = self.judge(self.module, to_tensors(self.held_out[split], self.device))
        self.loss_errors = {group: error.item() for group, error in errors.items()}
        return score.item(), {group: loss.item() for group, loss in losses.items()}

    def measures(self, module: nn.Module, rows: Any) -> dict[str, Tensor]:
        """Return what else is measured of held-out rows of a group, such as accuracy: name -> `(rows,)`."""
        return {}

    def measure(self, split: str = "validation") -> dict[str, float]:
        """Return the means of `measures` over a split's rows: `accuracy_GROUP`; without groups `accuracy`."""
        if type(self).measures is Judged.measures or split not in self.held_out:
            return {}
        held_out = self.held_out[split]
        groups = held_out if self.takes else {"": held_out}
        self.module.eval()
        found = {}
        with torch.no_grad(), self.computing():
            for group, rows in groups.items():
                there = pieces(to_tensors(rows, self.device), JUDGED_TOGETHER)
                parts = [self.measures(self.module, part) for part in there]
                for name in parts[0]:
                    mean = torch.cat([part[name].double() for part in parts]).mean().item()
                    found[f"{name}_{group}" if group else name] = mean
        return found
