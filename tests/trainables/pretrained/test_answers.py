"""Members of pretrained models answer questions: what they write, which answer they find the likeliest."""

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from shoal.trainables.answering import log_likelihoods
from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.scores import Choice, ExactMatch, Question, Questions
from shoal.trainables.stack import Stack
from tests.helpers.pretrained import causal, token_rows

ENDS = frozenset({8, 46})
PROMPTS = [np.random.default_rng(3).integers(10, 60, size) for size in (3, 7, 5, 9)]


def spell(ids: Any) -> str:
    return " ".join(map(str, ids))


def member(**settings: Any) -> Any:
    made = causal(**settings)
    made.train(5)
    made.module.eval()
    return made


def step_by_step(module: Any, prompt: np.ndarray, most: int) -> list[int]:
    """Write by whole passes, without padding and without a cache."""
    ids: list[int] = prompt.tolist()
    for _ in range(most):
        following = int(module(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if following in ENDS:
            break
        ids.append(following)
    return ids[len(prompt) :]


@torch.no_grad()
def alone(made: Any, most: int) -> list[list[int]]:
    return [step_by_step(made.module.eval(), prompt, most) for prompt in PROMPTS]


@torch.no_grad()
def written(made: Any, most: int) -> list[list[int]]:
    return made.write(made.module.eval(), PROMPTS, most, ENDS)


@torch.no_grad()
def likelihoods(made: Any, pairs: Any, mean: bool = False) -> list[float]:
    return log_likelihoods(made, pairs, mean)


def asked(score: Any, questions: list[Question], every_split: tuple[str, ...] = ("validation",)) -> Questions:
    return Questions(score, {split: {"asked": questions} for split in every_split}, spell, ENDS, 10, 40)


@pytest.mark.parametrize("whole", [False, True], ids=["adapter", "all weights"])
def test_prompts_of_a_batch_are_written_on_as_each_alone(whole: bool) -> None:
    made = member(**({"adapter": None} if whole else {}))
    expected = alone(made, 8)
    assert written(made, 8) == expected
    assert len({len(each) for each in expected}) > 1, "one of them ends early"


def test_a_folders_own_way_of_generation_changes_nothing() -> None:
    made = member()
    before = written(made, 8)
    made.module.generation_config.update(do_sample=True, temperature=9.0, repetition_penalty=5.0)
    assert written(made, 8) == before


def test_log_likelihoods_are_those_of_transformers() -> None:
    made = member()
    pairs = [(PROMPTS[0], np.array([11, 12, 5])), (PROMPTS[1], np.array([13, 5]))]
    expected = []
    for prompt, answer in pairs:
        ids = torch.from_numpy(np.concatenate([prompt, answer]))[None]
        with torch.no_grad():
            logs = made.module(input_ids=ids).logits[0].log_softmax(dim=-1)
        expected.append(sum(float(logs[len(prompt) + at - 1, each]) for at, each in enumerate(answer)))
    assert likelihoods(made, pairs) == pytest.approx(expected, rel=1e-4)
    means = [expected[0] / 3, expected[1] / 2]
    assert likelihoods(made, pairs, mean=True) == pytest.approx(means, rel=1e-4)


def test_the_score_is_the_share_of_right_answers() -> None:
    made = member()
    right = [*map(spell, alone(made, 8)[:3]), "another"]
    made.questions = asked(ExactMatch(tokens=8), [*map(Question, PROMPTS, right)])
    made.trained = 10
    score, losses = made.evaluate()
    assert score == 0.75 and made.measure() == {"right_asked": 0.75} and set(losses) == {"plain", "asked"}


def test_the_likeliest_of_given_answers_is_chosen() -> None:
    made = member()
    options = [np.array([place, 5]) for place in (11, 20, 30)]
    likely = [likelihoods(made, [(prompt, each) for each in options]) for prompt in PROMPTS]
    best = [int(np.argmax(each)) for each in likely]
    right = [best[0], (best[1] + 1) % 3, best[2], best[3]]
    made.questions = asked(
        Choice(),
        [Question(prompt, "", tuple(options), place) for prompt, place in zip(PROMPTS, right, strict=True)],
    )
    made.trained = 10
    assert made.evaluate()[0] == 0.75


def test_members_of_a_stack_answer_with_their_own_adapters() -> None:
    members = [causal(seed, rows=token_rows(seed=seed), learning_rate=0.03) for seed in (0, 1)]
    stack = Stack(members)
    stack.train(6)
    found, expected = ([way(each, 6) for each in members] for way in (written, alone))
    assert found == expected and found[0] != found[1]


def test_in_between_the_last_score_stays_and_moves_with_the_weights() -> None:
    donor, clone = member(seed=0), member(seed=1)
    for each in (donor, clone):
        each.questions = asked(ExactMatch(tokens=2, every=2), [Question(PROMPTS[0], "none")])
    donor.trained = 10
    assert np.isnan(donor.evaluate()[0]) and not donor.scored and donor.measure() == {}
    donor.trained = 20
    assert donor.evaluate()[0] == 0.0 and donor.scored
    hand_in(clone.load, handed_out(donor.state), {})
    clone.trained = 30
    assert clone.evaluate()[0] == 0.0 and not clone.scored
    clone.trained = 40
    assert clone.evaluate()[0] == 0.0 and clone.scored


def test_a_member_that_has_diverged_has_no_score() -> None:
    made = member()
    made.questions = asked(ExactMatch(tokens=2), [Question(PROMPTS[0], "none")])
    with torch.no_grad():
        made.module.model.layers[0].self_attn.q_proj.up.fill_(float("nan"))
    made.trained = 10
    assert np.isnan(made.evaluate()[0]) and made.scored


def test_groups_weigh_in_a_loss_as_the_file_says() -> None:
    made = member()
    _, losses = made.evaluate()
    for groups, expected in (
        (None, -(losses["plain"] + losses["asked"]) / 2),
        ("asked", -losses["asked"]),
        ({"plain": 3.0, "asked": 1.0}, -(3 * losses["plain"] + losses["asked"]) / 4),
    ):
        made.group_weights = groups
        assert made.evaluate()[0] == pytest.approx(expected, rel=1e-6)
