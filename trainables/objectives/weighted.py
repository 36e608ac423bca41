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
        return any(term.stateful for term in self.terms.values())

    @property
    def across_rows(self) -> bool:
        return any(term.across_rows for term in self.terms.values())

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
        return {
            state_name(kind, name): value
            for kind, term in self.terms.items()
            for name, value in term.start(sizes).items()
        }

    def loss(
        self, out: Mapping[str, Tensor], batch: Mapping[str, Tensor], numbers: Numbers, state: State
    ) -> tuple[Tensor, Signals]:
        """Return the weighted sum, `(rows,)` or one scalar, and all signals."""
        from shoal.trainables.searched_numbers import used

        total: Any = 0.0
        signals: dict[str, Tensor] = {}
        for kind, term in self.terms.items():
            weight = numbers.get(full_name(kind, "weight"), term.weight)
            if not used(weight):
                continue
            losses, told = term.loss(out, batch, self.own(kind, numbers), self.held(kind, state))
            total = total + weight * (losses if self.by_row else losses.mean())
            signals |= {state_name(kind, name): value for name, value in told.items()}
        return total, signals

    def after(self, state: State, signals: Signals, numbers: Numbers) -> dict[str, Tensor]:
        found = dict(state)
        for kind, term in self.terms.items():
            told = self.held(kind, signals)
            if not term.stateful or not told:
                continue
            moved = term.after(self.held(kind, state), told, self.own(kind, numbers))
            found |= {state_name(kind, name): value for name, value in moved.items()}
        return found

    def predict(self, out: Mapping[str, Tensor]) -> Tensor:
        """Return the prediction of the first term that has a rule of its own, else the logits."""
        own = (term for term in self.terms.values() if type(term).predict is not NamedLoss.predict)
        return next(own, next(iter(self.terms.values()))).predict(out)

    def own(self, kind: str, numbers: Numbers) -> Numbers:
        shared = {name: numbers[name] for name in SHARED if name in numbers}
        return shared | {name: numbers[full_name(kind, name)] for name in self.terms[kind].searched}

    def held(self, kind: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        before = state_name(kind, "")
        return {name.removeprefix(before): each for name, each in values.items() if name.startswith(before)}


def weighted_sum(terms: Sequence[tuple[str, NamedLoss]]) -> Weighted:
    return Weighted(dict(terms))


def full_name(kind: str, name: str) -> str:
    return f"objective.{kind}.{name}"


def state_name(kind: str, name: str) -> str:
    # a buffer's name must not have a dot
    return f"{kind}-{name}"
