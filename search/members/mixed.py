"""A network with its own mixing policy: it trains visits and tells the policy what was measured."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shoal.policies.arrays import Vector
from shoal.policies.mixers.doremi import clipped_excess
from shoal.policies.mixers.mixer import EXCESS, TRAINING, VALIDATION, WITHIN, Groups, Measurement, Visit
from shoal.policies.mixers.visits import BoundedMixing, begin_mixing, counted, observe, plan, reweighed
from shoal.policies.mixing import Counts
from shoal.search.config.mixing import PROBED, with_numbers
from shoal.search.corpus.batches import MixedBatches
from shoal.search.messages import GroupMixture, MixtureAccount, Reading
from shoal.trainables.arrays import rows_in, to_tensors
from shoal.trainables.gradient_products import gradients, inner_products, weighted
from shoal.trainables.member import SavedState, copies
from shoal.trainables.network import Network
from shoal.trainables.reference import Reference
from shoal.trainables.settings import Recipe


class VisitBatches:
    """Batches with the rows and weights that a visit asks for; it keeps the groups' losses."""

    def __init__(self, mixed: MixedBatches):
        self.mixed = mixed
        # rows of the visit, (steps, groups)
        self.counts: Counts = np.zeros((0, len(mixed.streams)), dtype=np.int64)
        self.by_group: Vector | None = None  # (groups,) weights of the groups' mean losses
        self.done = 0  # steps of the visit that are done
        self.losses: list[Vector] = []  # (groups,) for each step of the visit so far
        self.noted: dict[str, list[Vector]] = {}  # other measurements, one for each of these steps

    def begin(self, visit: Visit) -> None:
        self.counts, self.by_group, self.done = visit.counts, visit.weights, 0
        self.losses, self.noted = [], {}

    @property
    def left(self) -> int:
        return len(self.counts) - self.done

    def next(self) -> dict[str, NDArray[Any]]:
        if not self.left:  # someone looks at a batch outside of any visit
            rows = self.mixed.next()
            return {"rows": rows, "weights": equal_weights(rows_in(rows))}
        counts = self.counts[self.done]
        self.done += 1
        return {"rows": self.mixed.take(counts.tolist()), "weights": self.row_weights(self.shares)}

    def row_weights(self, by_group: Vector) -> NDArray[np.float32]:
        """Return the weight of each row of the last batch, from the weights of the groups' mean losses."""
        counts = self.counts[self.done - 1]
        return np.repeat(by_group / np.maximum(counts, 1), counts).astype(np.float32)

    @property
    def owners(self) -> NDArray[np.int64]:
        """The group of each row of the last batch, `(rows,)`."""
        return np.repeat(np.arange(self.counts.shape[1]), self.counts[self.done - 1])

    @property
    def shares(self) -> Vector:
        """The weight of each group's mean loss in the last batch, (groups,); 0 without a row."""
        counts = self.counts[self.done - 1]
        shares = counts if self.by_group is None else np.where(counts > 0, self.by_group, 0.0)
        if not shares.sum() > 0:  # only groups of weight 0 are in the batch
            shares = counts
        return np.asarray(shares / shares.sum())

    def note(self, **measured: Vector) -> None:
        """Keep measurements of the last batch's step."""
        for name, values in measured.items():
            self.noted.setdefault(name, []).append(values)

    def measured(self, name: str) -> Vector | None:
        """Return the measurements of this name in the visit, `(steps, ...)`, or None."""
        return np.array(self.noted[name]) if name in self.noted else None

    def weigh(self, losses: Any, weights: Any) -> Any:
        return weights

    def observe(self, losses: NDArray[np.floating]) -> None:
        """Take the rows' losses `(steps, rows)` of the last steps; a batch holds its rows group after group."""
        last = self.counts[self.done - len(losses) : self.done]
        for counts, of_rows in zip(last, losses, strict=True):
            ends = np.cumsum(counts)[:-1]
            parts = np.split(of_rows.astype(np.float64), ends)
            self.losses.append(np.array([part.mean() if len(part) else np.nan for part in parts]))

    def reading(self) -> Reading:
        return self.mixed.reading()

    @copies
    def state(self) -> SavedState:
        return self.mixed.state()

    @copies
    def load(self, state: SavedState) -> None:
        self.mixed.load(state)


def equal_weights(rows: int) -> NDArray[np.float32]:
    return np.full(rows, 1 / rows, dtype=np.float32)


class Mixed(Network):
    """What a network whose losses are by row becomes with `mixed_class`: its own policy chooses its mixture.

    The policy's state is part of the member's: a clone goes on with its donor's, a checkpoint may fall into
    the middle of a probe. Hyperparameters under `mixing` replace numbers of the policy, `floor` and `epochs`.
    """

    def __init__(
        self,
        recipe: Recipe,
        hyperparameters: dict[str, Any],
        batches: MixedBatches,
        held_out: Mapping[str, Mapping[str, Any]],  # has the split PROBED for the policy
        seed: int,
        device: str = "cpu",
        *,
        mixing: BoundedMixing,
        groups: Groups,
        reference: Reference | None = None,  # the excess of a loss is measured against it
        **constants: Any,
    ):
        self.given, self.groups, self.reference = mixing, groups, reference
        assert reference is not None or EXCESS not in mixing.policy.signals, (
            "the policy measures an excess, so it needs a reference"
        )
        self.visits = VisitBatches(batches)  # a sampling policy may put its own batches around them
        self.targets = groups.targets  # members need not train on these groups
        super().__init__(recipe, hyperparameters, self.visits, held_out, seed, device, **constants)
        self.mixing_state = begin_mixing(self.mixing, groups, seed)
        self.visit: Visit | None = None

    def adopt(self, hyperparameters: dict[str, Any]) -> None:
        chosen = dict(hyperparameters)
        self.mixing = with_numbers(self.given, chosen.pop("mixing", {}))
        super().adopt(chosen)
        self.hyperparameters = dict(hyperparameters)

    @property
    def alone(self) -> bool:
        """Whether it never trains in a stack: measurements within a step need one member by itself."""
        return super().alone or bool(self.mixing.policy.signals & WITHIN)

    def train(self, steps: int) -> float:
        return train_visits([self], lambda cut: [super(Mixed, self).train(cut)], steps)[0]

    def step(self) -> tuple[Tensor, Tensor]:
        told = self.visit.signals & WITHIN if self.visit else frozenset()
        if not told:
            return super().step()
        self.set_rates()
        batch = to_tensors(self.batches.next(), self.device)
        if EXCESS in told:
            with self.computing():
                losses, parts = self.losses_and_parts(self.called, batch["rows"], self.numbers)
            self.settle(excess=self.excess(parts, batch["rows"]))
            minimised = self.weighed(losses, batch["weights"], self.visits.shares)
            self.optimiser.zero_grad(set_to_none=True)
            minimised.sum().backward()
        else:
            with self.computing():
                losses = self.loss(self.called, batch["rows"], self.numbers)
            minimised = self.align(losses, batch["weights"])
        self.descend()
        return minimised.sum().detach(), losses.detach()

    def settle(self, **measured: Vector) -> None:
        """Keep measurements of this step and get new weights from the policy; this step trains with them."""
        self.visits.note(**measured)
        of_step: dict[str, Any] = {name: values[None] for name, values in measured.items()}
        weights, self.mixing_state = reweighed(
            self.mixing, self.groups, self.mixing_state, Measurement(**of_step)
        )
        self.visits.by_group = weights

    def weighed(self, losses: Tensor, given: Any, by_group: Vector) -> Tensor:
        """Return the weighted loss of each row of the last batch, given weights of the groups' mean losses."""
        below = torch.from_numpy(self.visits.row_weights(by_group)).to(self.device)
        weights = given | {"below": below} if isinstance(given, dict) else below
        weighed: Tensor = self.batches.weigh(losses.detach(), weights) * losses
        return weighed

    def excess(self, parts: Tensor, rows: Any) -> Vector:
        """Return each group's loss in excess of the reference's, (groups,).

        It is measured without dropout, like the reference: an excess below 0 counts as 0, so noise from
        dropout would add an excess to every group.
        """
        assert self.reference is not None
        ours, theirs = parts.cpu().numpy(), self.reference.losses(rows)
        return clipped_excess(ours, theirs, self.visits.owners, self.groups.count)

    def align(self, losses: Tensor, given: Any) -> Tensor:
        """Set the gradient of the groups' weighted mean losses, and return the weighted loss of each row.

        The gradients are taken group by group, since their inner products decide the weights.
        """
        owners, count = self.visits.owners, self.groups.count
        means = self.weighed(losses, given, np.ones(count))
        weights = list(self.weights().values())
        present = [group for group in range(count) if (owners == group).any()]
        slopes = gradients([means[torch.from_numpy(owners == group)].sum() for group in present], weights)
        products = np.full((count, count), np.nan)
        products[np.ix_(present, present)] = inner_products(slopes, slopes).cpu().numpy()
        self.settle(alignment=products, norms=np.sqrt(np.diag(products)))
        shares = self.visits.shares
        for weight, slope in zip(weights, weighted(slopes, shares[present].tolist()), strict=True):
            weight.grad = slope
        return means.detach() * torch.from_numpy(shares[owners].astype(np.float32)).to(self.device)

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
        """Tell the policy what the visit has measured, if the visit is over."""
        if self.visit is None or self.visits.left:
            return
        signals, losses = self.visit.signals, self.visits.losses
        measurement = Measurement(
            training=np.array(losses) if TRAINING in signals else None,
            validation=tuple(self.sequence_losses(PROBED).values()) if VALIDATION in signals else None,
            excess=self.visits.measured("excess"),
            alignment=self.visits.measured("alignment"),
            norms=self.visits.measured("norms"),
        )
        self.mixing_state = observe(self.mixing, self.groups, self.mixing_state, self.visit, measurement)
        self.visit = None

    def sequence_losses(self, split: str) -> dict[str, Vector]:
        """Return each group's loss of each held-out row, in nats per token."""
        self.module.eval()
        with torch.no_grad(), self.computing():
            found = self.row_losses(self.module, to_tensors(self.held_out[split], self.device))
        known = {group: self.span.agreed(losses) for group, losses in found.items()} if self.span else found
        return {group: losses.double().cpu().numpy() for group, losses in known.items()}

    @copies  # the state itself may be handed out: a policy makes a new one and never changes it
    def progress(self) -> SavedState:
        return super().progress() | {"mixing": self.mixing_state}

    @copies
    def load_progress(self, state: SavedState) -> None:
        super().load_progress(state)
        self.mixing_state, self.visit = state["mixing"], None

    def account(self) -> MixtureAccount:
        """Return what the run records of the mixture: proportions, rows seen, and what the policy measured."""
        state, policy = self.mixing_state, self.mixing_state["policy"]
        shares = counted(self.mixing, self.groups, state)
        effects, errors = (np.array(policy.get(name, [])) for name in ("effects", "errors"))
        groups = [
            GroupMixture(
                name,
                float(shares[place]),
                int(state["seen"][place]),
                self.groups.rows[place],
                effects[:, place].tolist() if effects.size else [],
                errors[:, place].tolist() if errors.size else [],
            )
            for place, name in enumerate(self.groups.names)
        ]
        extra = self.reference.steps if self.reference else 0
        decision, passes = policy.get("decision", ""), state["evaluations"]
        return MixtureAccount(groups, decision, passes, state["probe_steps"], extra)


@cache
def mixed_class(of: type[Network]) -> type[Mixed]:
    """Return the class of members of this class that choose their mixtures by a policy."""
    return type(f"Mixed{of.__name__}", (Mixed, of), {"__module__": of.__module__})


def train_visits(members: Sequence[Mixed], train: Callable[[int], Sequence[float]], steps: int) -> list[float]:
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
