"""The built-in decoder on instruction rows: what counts, what it sees, what it writes."""

from typing import Any

import numpy as np
import pytest
import torch

from shoal.trainables.answering import log_likelihoods
from shoal.trainables.arrays import to_tensors
from shoal.trainables.batches import Shuffled
from shoal.trainables.language import LanguageModel
from shoal.trainables.scores import Choice, Question, Questions
from shoal.trainables.settings import Recipe
from shoal.trainables.stack import Stack
from tests.helpers.members import SHAPE

CPU = torch.device("cpu")
LENGTH = SHAPE.sequence_length
ENDS = frozenset({7, 30})
PROMPTS = [np.random.default_rng(5).integers(8, 28, size) for size in (3, 6, 4, 9)]


def rows(count: int = 24, seed: int = 0) -> dict[str, np.ndarray]:
    """Return rows of two examples, in 5 and 4 places; the second half of each example counts."""
    segment = np.array([1] * 5 + [2] * 4 + [0] * (LENGTH - 9), np.uint16)
    mask = np.array([0, 0, 1, 1, 1, 0, 0, 1, 1] + [0] * (LENGTH - 9), np.uint8)
    tokens = np.random.default_rng(seed).integers(0, SHAPE.vocabulary, (count, LENGTH)).astype(np.uint16)
    return {"tokens": tokens, "mask": np.tile(mask, (count, 1)), "segment": np.tile(segment, (count, 1))}


def member(seed: int = 0, again: bool = False, **hyperparameters: Any) -> LanguageModel:
    recipe = Recipe(steps=40, warmup=2, learning_rate=0.02, gradient_checkpointing=again)
    held_out = {"validation": {"one": rows(6, 1)}}
    batches = Shuffled(rows(seed=seed), 4, seed)
    return LanguageModel(recipe, hyperparameters, batches, held_out, seed, shape=SHAPE)


def trained(seed: int = 0, **hyperparameters: Any) -> LanguageModel:
    made = member(seed, **hyperparameters)
    made.train(8)
    made.module.eval()
    return made


@torch.no_grad()
def losses(made: LanguageModel, given: dict[str, np.ndarray]) -> torch.Tensor:
    return made.loss(made.module, to_tensors(given, CPU), made.sober)


def test_a_packed_example_has_the_loss_that_it_has_alone() -> None:
    made, given = trained(), rows(3)
    with torch.no_grad():
        packed = made.parts(made.module, to_tensors(given, CPU))
    # the first place of an example is predicted by nothing of it: 3 places of the first, 2 of the second
    assert (~packed.isnan()).sum(dim=1).tolist() == [5, 5, 5]
    for start, end in ((0, 5), (5, 9)):
        alone = {name: array[:, start:end] for name, array in given.items()}
        expected = packed[:, start : end - 1].nanmean(dim=1)
        assert torch.allclose(losses(made, alone), expected, atol=1e-5)


def test_what_is_padded_changes_nothing() -> None:
    made, given = trained(), rows(3)
    other = {**given, "tokens": given["tokens"].copy()}
    other["tokens"][:, 9:] = 0
    assert torch.equal(losses(made, given), losses(made, other))


def test_rows_of_one_example_are_plain_rows_that_count_in_part() -> None:
    made = trained()
    tokens = rows(3)["tokens"]
    whole = {"tokens": tokens, "mask": np.ones_like(tokens, np.uint8), "segment": np.ones_like(tokens)}
    with torch.no_grad():
        plain = made.loss(made.module, to_tensors(tokens, CPU), made.sober)
    assert torch.allclose(losses(made, whole), plain, atol=1e-5)


def test_it_learns() -> None:
    made = member()
    first = made.train(1)
    made.train(60)
    assert made.train(1) < first - 0.3


@pytest.mark.parametrize("again", [False, True])
def test_members_of_a_stack_train_as_alone(again: bool) -> None:
    settings = ({"learning_rate": 0.01, "z_loss": 0.001}, {"learning_rate": 0.03, "label_smoothing": 0.1})
    alone = [member(seed, **each) for seed, each in enumerate(settings)]
    together = [member(seed, again, **each) for seed, each in enumerate(settings)]
    expected = [each.train(6) for each in alone]
    assert Stack(together).train(6) == pytest.approx(expected, rel=1e-5)
    for one, other in zip(alone, together, strict=True):
        assert one.evaluate()[0] == pytest.approx(other.evaluate()[0], rel=1e-4)


def test_prompts_of_a_batch_are_written_on_as_each_alone() -> None:
    made = trained(learning_rate=0.05)
    expected = []
    with torch.no_grad():
        for prompt in PROMPTS:
            ids = prompt.tolist()
            while len(ids) < min(len(prompt) + 6, LENGTH):
                following = int(made.module(torch.tensor([ids]))[0, -1].argmax())
                if following in ENDS:
                    break
                ids.append(following)
            expected.append(ids[len(prompt) :])
        assert made.write(made.module, PROMPTS, 6, ENDS) == expected
    assert max(map(len, expected)) > 1 and len(expected[3]) <= LENGTH - 9


def test_a_stack_answers_member_by_member_on_any_device() -> None:
    members = [trained(0), trained(1)]
    stack = Stack(members)
    asked = [Question(prompt, "7", (np.array([7]), np.array([8])), 0) for prompt in PROMPTS]
    for each in members:
        each.questions = Questions(Choice(), {"validation": {"one": asked}}, str, ENDS, 8, 40)
    expected = [each.evaluate() for each in members]
    stack.device = torch.device("meta")  # elsewhere than on a CPU stacks are judged as one
    assert stack.evaluate() == expected and 0 <= expected[0][0] <= 1


def test_log_likelihoods_are_those_of_the_logits() -> None:
    made, prompt, answer = trained(), PROMPTS[0], np.array([3, 4, 7])
    with torch.no_grad():
        logs = made.module(torch.from_numpy(np.concatenate([prompt, answer]))[None])[0].log_softmax(dim=-1)
        found = log_likelihoods(made, [(prompt, answer)], mean=False)
    assert found == pytest.approx([sum(float(logs[2 + at, each]) for at, each in enumerate(answer))], rel=1e-4)
