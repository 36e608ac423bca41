"""What ranks members: a loss, or the share of held-out questions that they answer rightly."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

GroupWeights = str | dict[str, float] | None


def check_weights(groups: GroupWeights) -> None:
    weights = groups.values() if isinstance(groups, dict) else [1.0]
    if not (all(weight >= 0 and math.isfinite(weight) for weight in weights) and sum(weights) > 0):
        raise ValueError(f"groups must have weights of at least 0, one of them above 0, but got {groups}.")


@dataclass(frozen=True)
class ByLoss:
    """Minus the mean of the groups' validation losses."""

    groups: str | dict[str, float] | None = None  # one group, or the weight of each; by default all alike

    def __post_init__(self) -> None:
        check_weights(self.groups)


@dataclass(frozen=True)
class ExactMatch:
    """The share of held-out prompts to which a member writes the right answer, greedily."""

    # an answer is compared by the last match of this expression, or of its first group, if it has one
    extract: str | None = None
    tokens: int = 64  # most tokens of a written answer
    questions: int | None = None  # held-out questions of each group; by default as many as evaluation_rows
    groups: str | dict[str, float] | None = None  # one group, or the weight of each; by default all alike
    every: int = 1  # members are scored at every so many intervals, and only then do they copy

    def __post_init__(self) -> None:
        check_weights(self.groups)
        check_counts(self)
        if self.tokens < 1:
            raise ValueError(f"tokens must be at least 1, but got {self.tokens}.")
        try:
            re.compile(self.extract or "")
        except re.error as error:
            raise ValueError(
                f"extract must be a regular expression, but got {self.extract!r}: {error}."
            ) from error

    def right(self, written: str, answer: str) -> bool:
        """Say whether a written answer is the right one, as far as `extract` looks at both."""
        wanted = self.found_in(answer)
        return self.found_in(written) == (answer.strip() if wanted is None else wanted)

    def found_in(self, text: str) -> str | None:
        """Return what counts of an answer; None where the expression does not match."""
        if self.extract is None:
            return text.strip()
        whole = re.compile(self.extract).groups == 0
        found = [match[0 if whole else 1] for match in re.finditer(self.extract, text)]
        kept = [part.strip() for part in found if part and part.strip()]
        return kept[-1] if kept else None


@dataclass(frozen=True)
class Choice:
    """The share of held-out prompts of whose given answers a member finds the right one the likeliest."""

    choices: tuple[str, ...] = ()  # the answers to choose from; by default each row's own (data.format.choices)
    # sum: the log-likelihood of a whole answer; mean: that of a token, which does not favour short answers
    likelihood: Literal["sum", "mean"] = "sum"
    questions: int | None = None  # held-out questions of each group; by default as many as evaluation_rows
    groups: str | dict[str, float] | None = None  # one group, or the weight of each; by default all alike
    every: int = 1  # members are scored at every so many intervals, and only then do they copy

    def __post_init__(self) -> None:
        check_weights(self.groups)
        check_counts(self)
        plain = [choice.strip() for choice in self.choices]
        if len(plain) == 1 or len(set(plain)) < len(plain) or not all(plain):
            raise ValueError(f"choices must be two different answers or more, but got {list(self.choices)}.")


def check_counts(given: ExactMatch | Choice) -> None:
    for name in ("questions", "every"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, but got {value}.")


TokenIds = NDArray[np.integer[Any]]


class Question(NamedTuple):
    """A held-out prompt and its answer; ids of tokens are `(tokens,)`."""

    prompt: TokenIds
    answer: str
    choices: tuple[TokenIds, ...] = ()  # the answers to choose from, each with the tokens that end it
    right: int = 0  # the place of the right one


@dataclass(frozen=True)
class Questions:
    """The held-out questions of a run, which its members share, and how their answers are judged."""

    score: ExactMatch | Choice
    by_split: Mapping[str, Mapping[str, Sequence[Question]]]  # split -> group -> questions
    decode: Callable[[Any], str]  # ids -> text
    ends: frozenset[int]  # tokens that end an answer
    interval: int  # steps
    steps: int  # steps that a member trains

    def due(self, trained: int, scored_at: int) -> bool:
        """Say whether weights that have trained so many steps are scored; the last time was at `scored_at`."""
        return trained >= self.steps or trained - scored_at >= self.interval * self.score.every


def group_shares(groups: GroupWeights, known: Sequence[str]) -> dict[str, float]:
    """Return the share of each group in a score; those that have none are left out."""
    if groups is None:
        return dict.fromkeys(known, 1 / len(known))
    given = {groups: 1.0} if isinstance(groups, str) else groups
    total = sum(given.values())
    return {group: weight / total for group, weight in given.items() if weight}
