"""A pretrained language model that learns from pairs of answers, of which one is the better."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shoal.trainables.arrays import pieces, to_tensors
from shoal.trainables.objectives.arithmetic import softplus
from shoal.trainables.objectives.inverted_hinge import hinge
from shoal.trainables.objectives.weighted import Weighted
from shoal.trainables.pretrained.causal import ROWS_AT_A_TIME, CausalModel
from shoal.trainables.pretrained.folder import open_base
from shoal.trainables.pretrained.rows import Seen, asked, objective_numbers, seen
from shoal.trainables.searched_numbers import FloatOrTensor

PROBE_BETA = 0.1  # the losses that are reported have this beta, whatever a member trains by


class PreferenceModel(CausalModel):
    """A model that is compared with the one that it began with: the reference.

    Adapters have it in memory already, since it is their frozen base. Whole models keep one frozen copy of it,
    which the members of a process share. The score is the share of held-out pairs whose better answer has
    gained more likelihood than the worse one
    since the reference; equal gains count half. Beside it stands the displacement: by how many nats the better
    answer has become likelier. Below 0 both answers have lost (Razin et al., 2025).
    """

    takes = frozenset({"preference"})
    searched = frozenset({"rank", "objective"})
    losses: Weighted

    def build(self) -> nn.Module:
        module = super().build()
        if self.pretrained.adapter is None:
            self.template = open_base(self.pretrained.path, self.recipe.precision, self.device)
        return module

    def loss(self, module: nn.Module, batch: Any, numbers: Mapping[str, FloatOrTensor]) -> Tensor:
        for layer in self.layers.values():
            layer.drop(numbers["dropout"])
        out = self.likelihoods(module, batch)
        return self.losses.loss(out, {}, objective_numbers(numbers, len(out["chosen"])), {})[0]

    def likelihoods(self, module: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return both answers' log-probabilities, those of the reference, and lengths: `(rows,)` each."""
        # the answers of a pair stand side by side, so that the rows of a stack stay member after member
        rows = {
            name: torch.stack([batch[f"chosen{end}"], batch[f"rejected{end}"]], dim=1).flatten(0, 1)
            for name, end in (("tokens", ""), ("mask", "_mask"))
        }
        read = seen(rows)
        own = -self.token_losses(module, read).sum(dim=1)
        with torch.no_grad():
            reference = -self.token_losses(self.template, read).sum(dim=1)
        found = {"": own, "_reference": reference, "_length": read.counted.sum(dim=1)}
        if "rejected_hinge" in self.losses.needs:
            found["_hinge"] = self.hinges(module, read)
        pairs = {end: values.view(-1, 2) for end, values in found.items()}
        return {
            f"{answer}{end}": values[:, place]
            for end, values in pairs.items()
            for place, answer in enumerate(("chosen", "rejected"))
        }

    def hinges(self, module: nn.Module, read: Seen) -> Tensor:
        """Return the sum of each answer's inverted hinges, `(answers,)`; it needs all logits in memory."""
        counts = read.counted > 0
        each = hinge(module(**asked(read)).logits[counts], read.targets[counts])
        return each.new_zeros(counts.shape).masked_scatter(counts, each).sum(dim=1)

    def gains(self, module: nn.Module, rows: Any) -> tuple[Tensor, Tensor]:
        """Return by how many nats each answer has become likelier since the reference: `(rows,)` each."""
        for layer in self.layers.values():
            layer.drop(0.0)
        found = [self.likelihoods(module, part) for part in pieces(rows, ROWS_AT_A_TIME)]
        chosen, rejected = (
            torch.cat([part[each] - part[f"{each}_reference"] for part in found]).double()
            for each in ("chosen", "rejected")
        )
        return chosen, rejected

    def row_losses(self, module: nn.Module, rows: Mapping[str, Any]) -> dict[str, Tensor]:
        return {group: pair_loss(*self.gains(module, each)) for group, each in rows.items()}

    def score(self, module: nn.Module, rows: Any) -> tuple[Tensor, dict[str, Tensor]]:
        gains = {group: self.gains(module, each) for group, each in rows.items()}
        losses = {group: pair_loss(*each).mean() for group, each in gains.items()}
        chosen = list(rows if self.targets is None else self.targets)
        return torch.stack([ranked_right(*gains[group]) for group in chosen]).mean(), losses

    def measure(self, split: str = "validation") -> dict[str, float]:
        """Return `accuracy_GROUP` and `displacement_GROUP`, the better answer's gain in nats."""
        found: dict[str, float] = {}
        self.module.eval()
        with torch.no_grad(), self.computing():
            for group, rows in to_tensors(self.held_out.get(split, {}), self.device).items():
                chosen, rejected = self.gains(self.module, rows)
                found[f"accuracy_{group}"] = ranked_right(chosen, rejected).item()
                found[f"displacement_{group}"] = chosen.mean().item()
        return found


def pair_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    return softplus(-PROBE_BETA * (chosen - rejected))


def ranked_right(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return the share of pairs whose better answer has gained more; equal gains count half."""
    return (chosen > rejected).double().mean() + 0.5 * (chosen == rejected).double().mean()
