"""How a member answers held-out questions: it writes an answer, or says how likely given answers are."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from shoal.trainables.scores import Choice, ExactMatch, Question, Questions, TokenIds

ANSWERED_TOGETHER = 16  # prompts, or given answers, in one pass


class Answers(Protocol):
    """What answers: a member, in evaluation mode and without gradients."""

    module: Any
    device: torch.device
    sober: Mapping[str, float]

    def loss(self, module: Any, batch: Any, numbers: Any) -> torch.Tensor: ...

    def write(self, module: Any, prompts: Sequence[TokenIds], most: int, ends: Set[int]) -> list[list[int]]: ...


def share_right(member: Answers, asked: Questions, questions: Sequence[Question]) -> float:
    """Return the share of some of the questions that a member answers rightly."""
    if isinstance(asked.score, ExactMatch):
        return float(np.mean(written_right(member, asked, questions, asked.score)))
    return float(np.mean(chosen_right(member, questions, asked.score)))


def written_right(
    member: Answers, asked: Questions, questions: Sequence[Question], way: ExactMatch
) -> list[bool]:
    """Return for each question whether the member writes its answer."""
    found = [False] * len(questions)
    # prompts of like lengths need little padding
    for places in in_passes(range(len(questions)), [len(each.prompt) for each in questions]):
        answers = member.write(
            member.module, [questions[place].prompt for place in places], way.tokens, asked.ends
        )
        for place, ids in zip(places, answers, strict=True):
            found[place] = way.right(asked.decode(ids), questions[place].answer)
    return found


def chosen_right(member: Answers, questions: Sequence[Question], way: Choice) -> list[bool]:
    """Return for each question whether the right answer is the likeliest of those that are given."""
    pairs = [(each.prompt, choice) for each in questions for choice in each.choices]
    likely = np.array(log_likelihoods(member, pairs, way.likelihood == "mean"))
    parts = np.split(likely, np.cumsum([len(each.choices) for each in questions])[:-1])
    return [
        int(part.argmax()) == question.right and bool(np.isfinite(part).all())
        for question, part in zip(questions, parts, strict=True)
    ]


def log_likelihoods(member: Answers, pairs: Sequence[tuple[TokenIds, TokenIds]], mean: bool) -> list[float]:
    """Return the log-likelihood of each answer behind its prompt, in nats: of all its tokens, or their mean."""
    found = [0.0] * len(pairs)
    for places in in_passes(range(len(pairs)), [len(prompt) + len(answer) for prompt, answer in pairs]):
        rows = answer_rows([pairs[place] for place in places])
        tensors: Any = {name: torch.from_numpy(values).to(member.device) for name, values in rows.items()}
        losses = member.loss(member.module, tensors, member.sober)  # the mean over the answer's tokens
        for place, loss in zip(places, losses.tolist(), strict=True):
            found[place] = -loss if mean else -loss * len(pairs[place][1])
    return found


def answer_rows(pairs: Sequence[tuple[TokenIds, TokenIds]]) -> dict[str, NDArray[Any]]:
    """Return instruction rows, one for each prompt with its answer, padded at their ends."""
    length = max(len(prompt) + len(answer) for prompt, answer in pairs)
    tokens = np.zeros((len(pairs), length), np.int64)
    mask, segment = np.zeros(tokens.shape, np.uint8), np.zeros(tokens.shape, np.int32)
    for row, (prompt, answer) in enumerate(pairs):
        end = len(prompt) + len(answer)
        tokens[row, :end] = np.concatenate([prompt, answer])
        mask[row, len(prompt) : end], segment[row, :end] = 1, 1
    return {"tokens": tokens, "mask": mask, "segment": segment}


def in_passes(places: Iterable[int], lengths: Sequence[int]) -> list[list[int]]:
    """Return places in parts for one pass each, those of like lengths together."""
    ordered = sorted(places, key=lambda place: (lengths[place], place))
    return [ordered[start : start + ANSWERED_TOGETHER] for start in range(0, len(ordered), ANSWERED_TOGETHER)]


def until_end(ids: Sequence[int], ends: Set[int]) -> list[int]:
    """Return ids up to the first one that ends a text."""
    place = next((place for place, each in enumerate(ids) if each in ends), len(ids))
    return list(ids[:place])
