import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from shoal.trainables.arrays import to_tensors
from shoal.trainables.batches import Shuffled
from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.objectives.kinds import OBJECTIVES
from shoal.trainables.objectives.weighted import weighted_sum
from shoal.trainables.pretrained.preference import PreferenceModel
from shoal.trainables.pretrained.settings import Pretrained
from shoal.trainables.settings import Recipe
from shoal.trainables.stack import Stack
from tests.helpers.members import equal
from tests.helpers.pretrained import ADAPTER, LENGTH, tiny_llama, token_rows

MASK = np.tile(np.array([0] * 5 + [1] * 5 + [0] * (LENGTH - 10), np.uint8), (24, 1))


def pairs(seed: int) -> dict[str, np.ndarray]:
    """Return pairs with one prompt of 5 tokens; the better answers have even tokens."""
    chosen, rejected = token_rows(24, seed), token_rows(24, seed + 50)
    rejected[:, :5] = chosen[:, :5]
    chosen[:, 5:] = chosen[:, 5:] // 2 * 2
    rejected[:, 5:] = rejected[:, 5:] // 2 * 2 + 1
    return {"chosen": chosen, "chosen_mask": MASK, "rejected": rejected, "rejected_mask": MASK}


def preferring(
    seed: int = 0, given: dict | None = None, kind: str = "dpo", **hyperparameters
) -> PreferenceModel:
    held_out = {split: {"one": pairs(3), "two": pairs(4)} for split in ("validation", "test")}
    return PreferenceModel(
        Recipe(steps=40, warmup=2, learning_rate=0.02),
        hyperparameters,
        Shuffled(pairs(1), 4, seed),
        held_out,
        seed,
        pretrained=Pretrained(tiny_llama(), ADAPTER),
        losses=weighted_sum([(kind, OBJECTIVES[kind](**(given or {})))]),
    )


def test_a_new_member_is_its_own_reference() -> None:
    member = preferring()
    score, losses = member.evaluate()
    assert score == 0.5 and losses == pytest.approx({"one": np.log(2), "two": np.log(2)})
    assert member.measure()["displacement_one"] == 0.0
    assert member.train(1) == pytest.approx(np.log(2), rel=1e-5)


def test_likelihoods_are_sums_over_the_answers_tokens_and_the_reference_does_not_move() -> None:
    member, rows = preferring(), to_tensors(pairs(3), torch.device("cpu"))
    before = member.likelihoods(member.module, rows)
    member.train(3)
    member.module.eval()
    with torch.no_grad():
        after = member.likelihoods(member.module, rows)
        logs = member.module(input_ids=rows["chosen"].long()).logits.log_softmax(dim=-1)
    # tokens 5 to 9 are the answer's; the place before each predicts it
    by_hand = sum(
        logs[:, place - 1].gather(1, rows["chosen"][:, place, None].long())[:, 0] for place in range(5, 10)
    )
    assert torch.allclose(after["chosen"], by_hand, atol=1e-4)
    assert torch.equal(after["chosen_reference"], before["chosen_reference"])
    assert after["chosen_length"].tolist() == [5.0] * 24
    assert not torch.allclose(after["chosen"], after["chosen_reference"])


def test_pairs_are_learnt_and_the_score_does_not_depend_on_a_searched_number() -> None:
    member = preferring(objective={"beta": 0.5, "sft": 0.1})
    member.train(30)
    assert member.evaluate()[0] > 0.7 and member.measure()["accuracy_one"] > 0.6
    found = member.evaluate()
    member.adopt({"objective": {"beta": 0.01}, "dropout": 0.3, "learning_rate": 0.1})
    assert member.evaluate() == found


def test_answers_are_forgotten_and_others_kept() -> None:
    member, rows, found = preferring(kind="inverted_hinge"), to_tensors(pairs(1), torch.device("cpu")), []
    for _ in range(2):
        member.module.eval()
        with torch.no_grad():
            out = member.likelihoods(member.module, rows)
        found.append([out["rejected_hinge"].mean().item(), out["chosen"].mean().item()])
        member.train(40)
    (before, unkept), (after, kept) = found
    assert after < before and kept > unkept, "the hinge falls, and the better answers gain"


def test_a_stack_with_other_betas_trains_as_its_members_alone() -> None:
    def made(place: int) -> PreferenceModel:
        return preferring(place, objective={"beta": 0.05 * (place + 1)})

    stack = Stack([made(place) for place in range(3)])
    for place, loss in enumerate(stack.train(4)):
        assert made(place).train(4) == pytest.approx(loss, rel=1e-3)


def test_a_copy_goes_on_bit_for_bit() -> None:
    donor, copy = preferring(1), preferring(2)
    donor.train(3)
    hand_in(copy.load, handed_out(donor.state), {})
    assert donor.train(2) == copy.train(2) and equal(handed_out(donor.state), handed_out(copy.state))
