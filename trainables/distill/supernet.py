"""A super-network as a member: one sub-space's networks trained together on shared weights."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.arrays import to_tensors
from trainables.distill.elastic import Transformer, extract
from trainables.distill.relations import relation_loss, relations
from trainables.distill.shared import SharedTeacher
from trainables.distill.spaces import Subnet, SubSpace, sandwich
from trainables.member import Batches
from trainables.network import Network
from trainables.settings import Recipe

Rows = tuple[Tensor, Tensor | None]  # tokens (rows, length), and a mask that is true at real ones


@dataclass(frozen=True)
class DistillRecipe(Recipe):
    """How a super-network trains; what it adds may be searched too."""

    tilt: float = 0.0  # large values of an axis are drawn e^tilt times as often as small ones
    inplace: float = 0.0  # share of the others' loss that is against the step's largest, not the teacher


@dataclass(frozen=True)
class Relation:
    """How relations are compared."""

    heads: int = 16
    kind: str = "kl"
    chunk: int | None = None  # relation heads in memory at once
    random: int = 2  # sub-networks of a step beside the largest and the smallest
    seed: int = 0  # of the choice of these


class SuperNetwork(Network):
    """Trains all networks of a sub-space at once (AutoDistil, Xu et al., 2022; sandwich rule, 2019).

    A batch is an array of tokens `(rows, length)`, or a pair of it and a mask. Scores itself by minus
    the mean relation loss of a few of its networks on held-out rows, in nats.
    """

    own_step = True

    def __init__(
        self,
        space: SubSpace,
        origin: Transformer,  # the teacher as a network of ours: where weights start from, left alone
        teacher: SharedTeacher,
        relation: Relation,
        recipe: DistillRecipe,
        hyperparameters: dict[str, Any],
        batches: Batches,
        held_out: Mapping[str, Mapping[str, Any]],  # split -> group -> what a batch is
        seed: int,
        device: str = "cpu",
    ):
        self.space, self.origin, self.teacher, self.relation = space, origin, teacher, relation
        super().__init__(recipe, hyperparameters, batches, held_out, seed, device)
        self.probes = probes(space)

    @property
    def transformer(self) -> Transformer:
        """The module: all sub-networks at once."""
        assert isinstance(self.module, Transformer)
        return self.module

    def build(self) -> nn.Module:
        return extract(self.origin, self.space.whole).requires_grad_(True)

    def step(self) -> tuple[Tensor, Tensor]:
        """Train this step's sub-networks one after another, so that only one is in memory at a time."""
        self.set_rates()
        tokens, mask = split(to_tensors(self.batches.next(), self.device))
        target = self.teacher.see(tokens, mask)
        rng = np.random.default_rng([self.relation.seed, self.trained])  # the same on every worker
        subnets = sandwich(self.space, rng, self.relation.random, self.numbers["tilt"])
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        largest: tuple[Tensor, ...] | None = None
        for subnet in subnets:
            seen = relations(self.module(tokens, mask, subnet))
            loss = self.distance(seen, target, mask)
            if largest is not None and self.numbers["inplace"]:
                share = self.numbers["inplace"]
                loss = (1 - share) * loss + share * self.distance(seen, largest, mask)
            loss.backward()  # gradients add up over the sub-networks
            largest = largest or tuple(x.detach() for x in seen)
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.clip)
        self.optimiser.step()
        self.trained += 1
        mean = total / len(subnets)
        return mean, mean

    def distance(self, seen: Iterable[Tensor], target: Iterable[Tensor], mask: Tensor | None) -> Tensor:
        relation = self.relation
        return relation_loss(tuple(seen), tuple(target), relation.heads, mask, relation.kind, relation.chunk)

    def loss(self, module: nn.Module, batch: Any, numbers: Mapping[str, Any]) -> Tensor:
        """Return the loss of the largest sub-network."""
        tokens, mask = split(batch)
        seen = relations(module(tokens, mask, self.space.largest))
        return self.distance(seen, self.teacher.see(tokens, mask), mask)

    def score(self, module: nn.Module, rows: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        losses = {
            group: torch.stack([self.held_out_loss(module, subnet, each) for subnet in self.probes]).mean()
            for group, each in rows.items()
        }
        return -torch.stack(list(losses.values())).mean(), losses

    def held_out_loss(self, module: nn.Module, subnet: Subnet | None, rows: Any) -> Tensor:
        """Return the mean loss of one network on rows of one group; the whole module where `subnet` is None."""
        total, count = torch.zeros((), dtype=torch.float64), 0
        for tokens, mask in parts(rows):
            seen = relations(module(tokens, mask, subnet))
            target = self.teacher.see(tokens, mask, held_out=True)
            total += self.distance(seen, target, mask).double().cpu() * len(tokens)
            count += len(tokens)
        return total / count

    def losses(self, subnets: Iterable[Subnet], split: str = "validation") -> list[float]:
        """Return each sub-network's mean held-out loss over the groups, with the shared weights."""
        self.module.eval()
        rows = to_tensors(self.held_out[split], self.device)
        with torch.no_grad():
            return [
                float(np.mean([float(self.held_out_loss(self.module, each, one)) for one in rows.values()]))
                for each in subnets
            ]


def probes(space: SubSpace, count: int = 4) -> list[Subnet]:
    """Return the networks that a super-network is judged by: both ends and a few between, always the same."""
    return sandwich(space, np.random.default_rng(0), count)


def split(batch: Any) -> Rows:
    tokens, mask = batch if isinstance(batch, tuple | list) else (batch, None)
    return tokens.long(), None if mask is None else mask.bool()


def parts(rows: Any, most: int = 64) -> Iterable[Rows]:
    tokens, mask = split(rows)
    for first in range(0, len(tokens), most):
        part = slice(first, first + most)
        yield tokens[part], None if mask is None else mask[part]
