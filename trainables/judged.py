"""How held-out rows judge a member: its loss on them, its score, and what else its class measures."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from shoal.trainables.answering import share_right
from shoal.trainables.arrays import pieces, to_tensors
from shoal.trainables.precision import computing
from shoal.trainables.scores import GroupWeights, Questions, TokenIds, group_shares
from shoal.trainables.searched_numbers import FloatOrTensor
from shoal.trainables.settings import Recipe

# with these numbers rows are judged: what only training uses must not count in a score
SOBER = {"dropout": 0.0, "label_smoothing": 0.0, "z_loss": 0.0}
JUDGED_TOGETHER = 64  # held-out rows in one pass


class Judged(ABC):
    """The part of a Network that judges: no searched number is part of what it finds."""

    takes: ClassVar[Set[str]] = frozenset()  # kinds of rows: tokens, instruction, preference, columns
    by_row: ClassVar[bool] = False  # whether `loss` returns the loss of each row
    writes: ClassVar[bool] = False  # whether it has `write`, which answers prompts
    targets: Sequence[str] | None = None  # groups whose losses make the score; all by default
    group_weights: GroupWeights = None  # one group, or the weight of each in the score; by default the targets
    questions: Questions | None = None  # answers to these make the score, if there are any
    # where answers make the score: the last one of these weights, and the step at which they had it
    last_score: float = math.nan
    scored_at: int = 0
    scored = True  # whether the last evaluation found a new score
    right: Mapping[str, float] = MappingProxyType({})  # share of right answers by group, if it did
    trained: int
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
        if self.group_weights is not None:
            shares = group_shares(self.group_weights, [])
            return -torch.stack([share * losses[group] for group, share in shares.items()]).sum(), losses
        chosen = losses if self.targets is None else self.targets
        return -torch.stack([losses[group] for group in chosen]).mean(), losses

    def judge(self, module: nn.Module, rows: Any) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Return the score, the loss per group, and its standard error over rows where that is known.

        A class with a `score` of its own does not say the losses of rows.
        """
        if type(self).score is not Judged.score:
            score, losses = self.score(module, rows)
            return unless_diverged(score, losses), losses, {}
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
        """Return the losses of each row `(rows, parts)` in which it is compared with a reference: here one.

        NaN stands where a part does not count.
        """
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
        self.scored, self.right = True, {}
        found = score.item()
        if self.questions is not None and math.isfinite(found):  # else it has diverged
            found = self.answer(self.questions, split)
        return found, {group: loss.item() for group, loss in losses.items()}

    def answer(self, asked: Questions, split: str) -> float:
        """Return the share of right answers, or the last score where these weights are not to be scored yet."""
        validates = split == "validation"
        self.scored = not validates or asked.due(self.trained, self.scored_at)
        if not self.scored:
            return self.last_score
        with torch.no_grad(), self.computing():
            of_groups = asked.by_split[split].items()
            self.right = {group: share_right(self, asked, each) for group, each in of_groups if each}
        shares = group_shares(self.group_weights, list(self.targets or self.right))
        score = sum(share * self.right[group] for group, share in shares.items())
        if validates:
            self.last_score, self.scored_at = score, self.trained
        return score

    def write(
        self, module: nn.Module, prompts: Sequence[TokenIds], most: int, ends: Set[int]
    ) -> list[list[int]]:
        """Return the likeliest next tokens of each prompt, one after another, at most so many.

        A text ends before the first token of `ends`. Only a class that says `writes = True` has it.
        """
        raise NotImplementedError

    def measures(self, module: nn.Module, rows: Any) -> dict[str, Tensor]:
        """Return what else is measured of held-out rows of a group, such as accuracy: name -> `(rows,)`."""
        return {}

    def measure(self, split: str = "validation") -> dict[str, float]:
        """Return the means of `measures` over a split's rows: `accuracy_GROUP`; without groups `accuracy`."""
        known = {f"right_{group}": share for group, share in self.right.items()}
        if type(self).measures is Judged.measures or split not in self.held_out:
            return known
        held_out = self.held_out[split]
        groups = held_out if self.takes else {"": held_out}
        self.module.eval()
        found = known
        with torch.no_grad(), self.computing():
            for group, rows in groups.items():
                there = pieces(to_tensors(rows, self.device), JUDGED_TOGETHER)
                parts = [self.measures(self.module, part) for part in there]
                for name in parts[0]:
                    mean = torch.cat([part[name].double() for part in parts]).mean().item()
                    found[f"{name}_{group}" if group else name] = mean
        return found


def unless_diverged(score: Tensor, losses: Mapping[str, Tensor]) -> Tensor:
    """Return the score, or NaN where every loss is: shares of right answers are finite numbers even then."""
    if not losses:
        return score
    lost = torch.stack([loss.isnan().all() for loss in losses.values()]).all()
    return torch.where(lost, torch.full_like(score, math.nan), score)
