"""A language model whose rows follow a mixing policy of its own: it trains visits and tells what came."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from policies.mixers.doremi import clipped_excess
from policies.mixers.visits import (
    ALIGNMENT,
    EXCESS,
    TRAINING,
    VALIDATION,
    WITHIN,
    Groups,
    Mixing,
    Outcome,
    Visit,
    begin,
    counted,
    observe,
    plan,
)
from policies.mixing import Counts, Vector
from search.config.mixing import PROBED, settled
from search.corpus.batches import MixedBatches
from trainables.arrays import to_tensors
from trainables.decoder import losses_by_token
from trainables.gradient_products import gradients, inner_products, weighted
from trainables.language import LanguageModel
from trainables.member import SavedState, copies
from trainables.reference import Reference
from trainables.settings import DecoderShape, Recipe


class VisitBatches:
    """Rows of each group as a visit's table says, each with its weight; keeps the losses of its groups."""

    def __init__(self, mixed: MixedBatches):
        self.mixed = mixed
        self.counts: Counts = np.zeros((0, len(mixed.streams)), dtype=np.int64)  # of the visit, (steps, groups)
        self.by_group: Vector | None = None  # (groups,) weights of the groups' mean losses
        self.done = 0  # steps of the visit
        self.losses: list[Vector] = []  # of the visit's steps so far, (groups,) each
        self.noted: dict[str, list[Vector]] = {}  # what else was measured in each of them

    def begin(self, visit: Visit) -> None:
        self.counts, self.by_group, self.done = visit.counts, visit.weights, 0
        self.losses, self.noted = [], {}

    @property
    def left(self) -> int:
        return len(self.counts) - self.done

    def next(self) -> dict[str, NDArray[Any]]:
        if not self.left:  # a look at what a batch is like, outside of any visit
            rows = self.mixed.next()
            return {"rows": rows, "weights": np.full(len(rows), 1 / len(rows), dtype=np.float32)}
        counts = self.counts[self.done]
        self.done += 1
        weights = np.repeat(self.shares / np.maximum(counts, 1), counts)
        return {"rows": self.mixed.take(counts.tolist()), "weights": weights.astype(np.float32)}

    @property
    def owners(self) -> NDArray[np.int64]:
        """The group of each row of the last batch, `(rows,)`."""
        return np.repeat(np.arange(self.counts.shape[1]), self.counts[self.done - 1])

    @property
    def shares(self) -> Vector:
        """What each group's mean loss counts in the last batch, (groups,): 0 if it has no row."""
        counts = self.counts[self.done - 1]
        shares = counts if self.by_group is None else np.where(counts > 0, self.by_group, 0.0)
        return np.asarray(shares / max(float(shares.sum()), 1e-300))

    def note(self, **measured: Vector) -> None:
        """Take what was measured in the step of the last batch."""
        for name, values in measured.items():
            self.noted.setdefault(name, []).append(values)

    def measured(self, name: str) -> Vector | None:
        """Return what was noted in the visit, `(steps, ...)`, if anything was."""
        return np.array(self.noted[name]) if name in self.noted else None

    def weigh(self, losses: Any, weights: Any) -> Any:
        return weights

    def observe(self, losses: NDArray[np.floating]) -> None:
        """Take the rows' losses `(steps, rows)` of the last steps, group after group as handed out."""
        last = self.counts[self.done - len(losses) : self.done]
        for counts, of_rows in zip(last, losses, strict=True):
            ends = np.cumsum(counts)[:-1]
            parts = np.split(of_rows.astype(np.float64), ends)
            self.losses.append(np.array([part.mean() if len(part) else np.nan for part in parts]))

    @copies
    def state(self) -> SavedState:
        return self.mixed.state()

    @copies
    def load(self, state: SavedState) -> None:
        self.mixed.load(state)


class MixedModel(LanguageModel):
    """One decoder in training on the mixture that its own policy chooses.

    The policy's state is part of the member's: a clone goes on with its donor's, a checkpoint may fall into
    the middle of a probe. Hyperparameters under `mixing` replace numbers of the policy, `floor` and `epochs`.
    """

    def __init__(
        self,
        shape: DecoderShape,
        recipe: Recipe,
        hyperparameters: dict[str, Any],
        batches: MixedBatches,
        held_out: Mapping[str, Mapping[str, NDArray[np.integer]]],  # with a split PROBED for the policy
        seed: int,
        device: str,
        mixing: Mixing,
        groups: Groups,
        reference: Reference | None = None,  # that an excess is measured against
    ):
        self.given, self.groups, self.reference = mixing, groups, reference
        assert reference is not None or EXCESS not in mixing.policy.signals, "an excess is over a reference"
        self.visits = VisitBatches(batches)  # a sampling policy may come between them and the training
        super().__init__(shape, recipe, hyperparameters, self.visits, held_out, seed, device)
        self.mixing_state = begin(self.mixing, groups, seed)
        self.visit: Visit | None = None

    def adopt(self, hyperparameters: dict[str, Any]) -> None:
        chosen = dict(hyperparameters)
        self.mixing = settled(self.given, chosen.pop("mixing", {}))
        super().adopt(chosen)
        self.hyperparameters = dict(hyperparameters)

    @property
    def alone(self) -> bool:
        """Whether it never trains in a stack: what is measured within a step is measured on one member."""
        return super().alone or bool(self.mixing.policy.signals & WITHIN)

    def train(self, steps: int) -> float:
        return train_visits([self], lambda cut: [super(MixedModel, self).train(cut)], steps)[0]

    def step(self) -> tuple[Tensor, Tensor]:
        told = self.visit.signals & WITHIN if self.visit else frozenset()
        if not told:
            return super().step()
        self.set_rates()
        batch = to_tensors(self.batches.next(), self.device)
        tokens = batch["rows"].long()
        logits = self.called(tokens, self.numbers["dropout"])
        losses = self.losses_of(logits, tokens, self.numbers)
        minimised = self.batches.weigh(losses.detach(), batch["weights"]) * losses
        if EXCESS in told:
            assert self.reference is not None
            by_token = losses_by_token(logits.detach(), tokens).cpu().numpy()
            known, count = self.reference.losses(tokens), self.groups.count
            self.visits.note(excess=clipped_excess(by_token, known, self.visits.owners, count))
        if ALIGNMENT in told:
            self.align(minimised)
        else:
            self.optimiser.zero_grad(set_to_none=True)
            minimised.sum().backward()
        self.descend()
        return minimised.sum().detach(), losses.detach()

    def align(self, minimised: Tensor) -> None:
        """Take the rows' gradients group by group; note the inner products of those of mean losses."""
        owners, shares, count = self.visits.owners, self.visits.shares, self.groups.count
        weights = list(self.weights().values())
        present = [group for group in range(count) if (owners == group).any()]
        slopes = gradients([minimised[torch.from_numpy(owners == group)].sum() for group in present], weights)
        for weight, slope in zip(weights, weighted(slopes, [1.0] * len(present)), strict=True):
            weight.grad = slope
        products = np.full((count, count), np.nan)
        # what a group of no weight has no part in the loss, so its gradient is not seen
        scale = 1 / np.where(shares[present] > 0, shares[present], np.nan)
        found = inner_products(slopes, slopes).cpu().numpy() * np.outer(scale, scale)
        products[np.ix_(present, present)] = found
        self.visits.note(alignment=products, norms=np.sqrt(np.diag(products)))

    def ready(self, limit: int) -> int:
        """Return the steps until the member has something to measure, at most `limit`."""
        while self.visit is None:
            visit, self.mixing_state = plan(self.mixing, self.groups, self.mixing_state, limit)
            self.visits.begin(visit)
            self.visit = visit
            if not visit.steps:
                self.heed()
        return self.visits.left

    def heed(self) -> None:
        """Tell the policy what came of the visit, if that is over."""
        if self.visit is None or self.visits.left:
            return
        signals, losses = self.visit.signals, self.visits.losses
        outcome = Outcome(
            training=np.array(losses) if TRAINING in signals else None,
            validation=tuple(self.sequence_losses(PROBED).values()) if VALIDATION in signals else None,
            excess=self.visits.measured("excess"),
            alignment=self.visits.measured("alignment"),
            norms=self.visits.measured("norms"),
        )
        self.mixing_state = observe(self.mixing, self.groups, self.mixing_state, self.visit, outcome)
        self.visit = None

    def sequence_losses(self, split: str) -> dict[str, Vector]:
        """Return each group's loss of each held-out row, in nats per token."""
        self.module.eval()
        with torch.no_grad():
            found = self.row_losses(self.module, to_tensors(self.held_out[split], self.device))
        known = {group: self.span.agreed(losses) for group, losses in found.items()} if self.span else found
        return {group: losses.double().cpu().numpy() for group, losses in known.items()}

    def score(self, module: nn.Module, rows: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return minus the mean loss of the targets, which may be other groups than are trained on."""
        _, losses = super().score(module, rows)
        return -torch.stack([losses[target] for target in self.groups.targets]).mean(), losses

    @copies  # a policy makes a new state, and leaves the old one as it is
    def progress(self) -> SavedState:
        return super().progress() | {"mixing": self.mixing_state}

    @copies
    def load_progress(self, state: SavedState) -> None:
        super().load_progress(state)
        self.mixing_state, self.visit = state["mixing"], None

    def account(self) -> dict[str, Any]:
        """Return what the run records of the mixture: proportions, rows seen, and what the policy measured."""
        state, policy = self.mixing_state, self.mixing_state["policy"]
        shares = counted(self.mixing, self.groups, state)
        effects, errors = (np.array(policy.get(name, [])) for name in ("effects", "errors"))
        groups = [
            {
                "group": name,
                "proportion": float(shares[place]),
                "seen": int(state["seen"][place]),
                "rows": self.groups.rows[place],
                "effects": effects[:, place].tolist() if effects.size else [],
                "errors": errors[:, place].tolist() if errors.size else [],
            }
            for place, name in enumerate(self.groups.names)
        ]
        counts = {name: state[name] for name in ("evaluations", "probe_steps")}
        counts["extra_steps"] = self.reference.steps if self.reference else 0
        return {"groups": groups, "decision": policy.get("decision", ""), **counts}


def train_visits(
    members: Sequence[MixedModel], train: Callable[[int], Sequence[float]], steps: int
) -> list[float]:
    """Train members side by side; return their mean training losses.

    Their visits end at different steps, so they train together up to the nearest end.
    """
    total, done = np.zeros(len(members)), 0
    while done < steps:
        cut = min(member.ready(steps - done) for member in members)
        total += np.array(train(cut)) * cut
        done += cut
        for member in members:
            member.heed()
    return [float(mean) for mean in total / steps]
