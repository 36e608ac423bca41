"""The objective of a run: one, or the weighted sum of several of different kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoal.trainables.objectives.interface import NamedLoss, Sizes

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.trainables.objectives.interface import Numbers, Signals, State

SHARED = ("label_smoothing",)  # numbers of the recipe that objectives look at
SIZE = "size"  # a balanced list keeps each loss's running size under this name
SIZE_RATE = 0.1  # share of a new batch in a running size
MOST_BALANCED = 1e3  # a loss is multiplied or divided by at most this to balance it


@dataclass(frozen=True)
class Weighted:
    """Objectives by kind; with several their numbers are searched under the kind, and their weights too."""

    terms: Mapping[str, NamedLoss]

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(term.needs for term in self.terms.values()))

    @property
    def fields(self) -> frozenset[str]:
        return frozenset().union(*(term.fields for term in self.terms.values()))

    @property
    def by_row(self) -> bool:
        return all(term.by_row for term in self.terms.values())

    @property
    def stateful(self) -> bool:
        return self.balanced or any(term.stateful for term in self.terms.values())

    @property
    def balanced(self) -> bool:
        """Whether a loss after the first is brought to the first one's running size."""
        return any(term.balanced for term in list(self.terms.values())[1:])

    @property
    def across_rows(self) -> bool:
        return any(term.across_rows for term in self.terms.values())

    @property
    def alone(self) -> bool:
        return any(term.alone for term in self.terms.values())

    @property
    def mover(self) -> str:
        """Return the kind of the first objective that moves rows before they are trained, or nothing."""
        return next((kind for kind, term in self.terms.items() if "moved" in term.needs), "")

    @property
    def several(self) -> bool:
        return len(self.terms) > 1

    def searched_of(self, kind: str) -> tuple[str, ...]:
        """Return the numbers of a term that may be searched."""
        return (*self.terms[kind].searched, *(["weight"] if self.several else []))

    def numbers(self, chosen: Mapping[str, Any]) -> dict[str, float]:
        """Return all numbers under their full names: what was chosen, or what the file says.

        `chosen` holds numbers by name; with several terms it holds them by kind.
        """
        found = {}
        for kind, term in self.terms.items():
            own = chosen.get(kind, {}) if self.several else chosen
            for name in self.searched_of(kind):
                found[full_name(kind, name)] = float(own.get(name, getattr(term, name)))
        return found

    def misfit(self, sizes: Sizes) -> str:
        said = ((kind, term.misfit(sizes)) for kind, term in self.terms.items())
        return next((f"{kind}: {problem}" for kind, problem in said if problem), "")

    def start(self, sizes: Sizes) -> dict[str, Tensor]:
        """Return the first state of all terms, under full names with `_` in place of dots."""
        import torch

        found = {kind: term.start(sizes) for kind, term in self.terms.items()}
        if self.balanced:
            # -1 stands for a loss that has no running size yet
            found = {kind: {**each, SIZE: torch.tensor(-1.0)} for kind, each in found.items()}
        return {state_name(kind, name): value for kind, each in found.items() for name, value in each.items()}

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        """Return the weighted sum, `(rows,)` or one scalar, and all signals."""
        from shoal.trainables.searched_numbers import used

        total: Any = 0.0
        signals: dict[str, Tensor] = {}
        first: Any = None  # running size of the first loss
        weights = {
            kind: numbers.get(full_name(kind, "weight"), term.weight) for kind, term in self.terms.items()
        }
        # a member may draw 0 for every weight: one loss is still computed, so that there is a gradient, of 0
        live = [kind for kind, weight in weights.items() if used(weight)] or list(weights)[:1]
        for kind in live:
            term, weight = self.terms[kind], weights[kind]
            losses, told = term.loss(out, batch, self.own(kind, numbers), self.held(kind, state))
            if self.balanced:
                told = {**told, SIZE: running_size(losses, state[state_name(kind, SIZE)])}
                first = told[SIZE] if first is None else first
                ratio = (first / told[SIZE].clamp(min=1e-12)).clamp(1 / MOST_BALANCED, MOST_BALANCED)
                losses = ratio * losses if term.balanced else losses
            total = total + weight * (losses if self.by_row else losses.mean())
            signals |= {state_name(kind, name): value for name, value in told.items()}
        return total, signals

    def after(self, state: State, signals: Signals, numbers: Numbers) -> dict[str, Tensor]:
        found = dict(state)
        for kind, term in self.terms.items():
            told = self.held(kind, signals)
            if not told:
                continue
            moved = dict(term.after(self.held(kind, state), told, self.own(kind, numbers)))
            if SIZE in told:
                moved[SIZE] = told[SIZE]
            found |= {state_name(kind, name): value for name, value in moved.items()}
        return found

    def predict(self, out: Mapping[str, Tensor], state: State) -> Tensor:
        """Return the prediction of the first term that has a rule of its own, else the logits."""
        own = (kind for kind, term in self.terms.items() if type(term).predict is not NamedLoss.predict)
        kind = next(own, next(iter(self.terms)))
        return self.terms[kind].predict(out, self.held(kind, state))

    def own(self, kind: str, numbers: Numbers) -> Numbers:
        shared = {name: numbers[name] for name in SHARED if name in numbers}
        return shared | {name: numbers[full_name(kind, name)] for name in self.terms[kind].searched}

    def held(self, kind: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        before = state_name(kind, "")
        return {name.removeprefix(before): each for name, each in values.items() if name.startswith(before)}


def weighted_sum(terms: Sequence[tuple[str, NamedLoss]]) -> Weighted:
    return Weighted(dict(terms))


def running_size(losses: Tensor, before: Tensor) -> Tensor:
    """Return the moving average of a loss's mean size, a scalar; it begins at the first one."""
    import torch

    now = losses.detach().mean().abs()
    return torch.where(before < 0, now, (1 - SIZE_RATE) * before + SIZE_RATE * now)


def full_name(kind: str, name: str) -> str:
    return f"objective.{kind}.{name}"


def state_name(kind: str, name: str) -> str:
    # a buffer's name must not have a dot
    return f"{kind}-{name}"
