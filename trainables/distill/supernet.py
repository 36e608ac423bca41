"""A super-network as a member: one sub-space's networks trained together on shared weights."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shoal.trainables.arrays import to_tensors
from shoal.trainables.distill.decoder import ElasticDecoder
from shoal.trainables.distill.elastic import Transformer, extract, linear
from shoal.trainables.distill.losses import hidden_loss, logit_loss
from shoal.trainables.distill.relations import relation_loss, relations
from shoal.trainables.distill.shared import SharedTeacher
from shoal.trainables.distill.spaces import Subnet, SubSpace, sandwich
from shoal.trainables.distill.teachers import Shown
from shoal.trainables.member import Batches
from shoal.trainables.network import Network
from shoal.trainables.settings import Recipe
from shoal.trainables.span import Span

MaskedRows = tuple[Tensor, Tensor | None]  # tokens (rows, length), and a mask that is true at real ones


@dataclass(frozen=True)
class DistillRecipe(Recipe):
    """How a super-network trains; the numbers that it adds may be searched too."""

    tilt: float = 0.0  # the largest value of an axis is drawn e^tilt times as often as the smallest
    inplace: float = 0.0  # share of the smaller networks' loss that the largest teaches, not the teacher


@dataclass(frozen=True)
class Weights:
    """How much each loss counts in the sum that is minimised."""

    relation: float = 1.0
    hidden: float = 0.0  # compares the last stream, after a learnt projection to the teacher's width
    logits: float = 0.0  # compares the logits of the next token, which only decoders have
    temperature: float = 1.0  # softens the logits


@dataclass(frozen=True)
class Relation:
    """How relations are compared."""

    heads: int = 16
    kind: str = "kl"
    chunk: int | None = None  # relation heads in memory at once
    random: int = 2  # sub-networks of a step besides the largest and the smallest
    seed: int = 0  # seeds the choice of these
    weights: Weights = Weights()


class SuperNetwork(Network):
    """Trains all networks of a sub-space at once (AutoDistil, Xu et al., 2022; sandwich rule, 2019).

    A batch is an array of tokens `(rows, length)`, or a pair of it and a mask. Scores itself by minus
    the mean loss of a few of its networks on held-out rows, in nats.
    """

    own_step = True

    def __init__(
        self,
        space: SubSpace,
        origin: Transformer,  # the teacher as one of our networks: weights start as a copy of it
        teacher: SharedTeacher,
        relation: Relation,
        recipe: DistillRecipe,
        hyperparameters: dict[str, Any],
        batches: Batches,
        held_out: Mapping[str, Mapping[str, Any]],  # split -> group -> rows, in the form of a batch
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
        made = extract(self.origin, self.space.whole).requires_grad_(True)
        if self.relation.weights.hidden:
            # at first it is the identity, since the weights are the first columns of the teacher's
            made.project = nn.Linear(self.space.whole.width, self.origin.shape.width, bias=False)
            nn.init.eye_(made.project.weight)
        return made

    def spread(self, span: Span) -> None:
        """Train over several processes, each on its rows of a batch and on the same sub-networks."""
        if span.sharded:
            raise ValueError("a super-network's weights must be whole on every worker: span must be ddp.")
        self.span = span

    def step(self) -> tuple[Tensor, Tensor]:
        """Train this step's sub-networks one after another, so that only one is in memory at a time."""
        self.set_rates()
        rows = self.batches.next() if self.span is None else self.span.part(self.batches.next())
        tokens, mask = tokens_and_mask(to_tensors(rows, self.device))
        target = self.teacher.see(tokens, mask)
        rng = np.random.default_rng([self.relation.seed, self.trained])  # every worker draws the same
        subnets = sandwich(self.space, rng, self.relation.random, self.numbers["tilt"])
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        largest: Shown | None = None
        for subnet in subnets:
            shown = self.show(self.module, tokens, mask, subnet)
            loss = self.distance(shown, target, mask)
            if largest is not None and self.numbers["inplace"]:
                share = self.numbers["inplace"]
                loss = (1 - share) * loss + share * self.distance(shown, largest, mask)
            loss.backward()  # gradients add up over the sub-networks
            largest = largest or shown  # as a teacher it gets no gradient
            total += loss.detach()
        self.share_gradients()
        self.descend()
        mean = total / len(subnets)
        return mean, mean

    def share_gradients(self) -> None:
        """Take the mean of all processes' gradients: they all trained the same sub-networks."""
        if self.span is None:
            return
        for weight in self.module.parameters():
            if weight.grad is not None:
                weight.grad = self.span.mean(weight.grad)

    def show(self, module: nn.Module, tokens: Tensor, mask: Tensor | None, subnet: Subnet | None) -> Shown:
        """Return a sub-network's outputs for rows, with its stream brought to the teacher's width."""
        seen, weights = module(tokens, mask, subnet), self.relation.weights
        project, width = getattr(module, "project", None), self.origin.shape.width
        hidden = linear(project, seen.hidden, width) if isinstance(project, nn.Linear) else None
        logits = module.logits(seen.hidden) if weights.logits and isinstance(module, ElasticDecoder) else None
        return Shown(relations(seen), hidden, logits)

    def distance(self, own: Shown, target: Shown, mask: Tensor | None) -> Tensor:
        """Return the weighed sum of the losses: a scalar; `target` gets no gradient."""
        how, weights = self.relation, self.relation.weights
        total = torch.zeros((), device=own.relations[0].device)
        if weights.relation:
            loss = relation_loss(own.relations, target.relations, how.heads, mask, how.kind, how.chunk)
            total = total + weights.relation * loss
        if own.hidden is not None and target.hidden is not None:
            total = total + weights.hidden * hidden_loss(own.hidden, target.hidden, mask=mask)
        if own.logits is not None and target.logits is not None:
            total = total + weights.logits * logit_loss(own.logits, target.logits, weights.temperature, mask)
        return total

    def loss(self, module: nn.Module, batch: Any, numbers: Mapping[str, Any]) -> Tensor:
        """Return the loss of the largest sub-network."""
        tokens, mask = tokens_and_mask(batch)
        shown = self.show(module, tokens, mask, self.space.largest)
        return self.distance(shown, self.teacher.see(tokens, mask), mask)

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
            shown = self.show(module, tokens, mask, subnet)
            target = self.teacher.see(tokens, mask, held_out=True)
            total += self.distance(shown, target, mask).double().cpu() * len(tokens)
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
    """Return the networks by which a super-network is judged: the largest, the smallest and `count` others."""
    return sandwich(space, np.random.default_rng(0), count)


def tokens_and_mask(batch: Any) -> MaskedRows:
    tokens, mask = batch if isinstance(batch, tuple | list) else (batch, None)
    return tokens.long(), None if mask is None else mask.bool()


def parts(rows: Any, most: int = 64) -> Iterable[MaskedRows]:
    tokens, mask = tokens_and_mask(rows)
    for first in range(0, len(tokens), most):
        part = slice(first, first + most)
        yield tokens[part], None if mask is None else mask[part]
