"""MaskedTokens language modelling: which tokens are hidden, and members that find them from both sides."""

from typing import Any

import numpy as np
import pytest
import torch

from shoal.trainables.arrays import to_tensors
from shoal.trainables.batches import Shuffled
from shoal.trainables.decoder import Decoder, initialise
from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.hiding import as_seen, draws, to_find
from shoal.trainables.language import LanguageModel
from shoal.trainables.objectives.masked import MaskedTokens
from shoal.trainables.objectives.weighted import weighted_sum
from shoal.trainables.settings import DecoderShape, Recipe
from shoal.trainables.stack import Stack, stackable
from tests.helpers.members import equal
from tests.helpers.pretrained import LENGTH, VOCABULARY, instruction_rows, token_rows

SHAPE = DecoderShape(vocabulary=VOCABULARY, sequence_length=LENGTH, layers=2, heads=2, width=32)
CPU = torch.device("cpu")


def patterned(rows: int = 64, seed: int = 0) -> np.ndarray:
    """Return rows whose tokens follow from any other one: token i is the first plus 3 i."""
    begin = np.random.default_rng(seed).integers(0, VOCABULARY, (rows, 1))
    return ((begin + 3 * np.arange(LENGTH)) % VOCABULARY).astype(np.uint16)


def member(
    rows: Any = None, seed: int = 0, recipe: dict[str, Any] | None = None, **hyperparameters: Any
) -> Any:
    held_out = {
        split: {"one": patterned(16, 1), "two": instruction_rows(6, 2)} for split in ("validation", "test")
    }
    return LanguageModel(
        Recipe(**{"steps": 300, "warmup": 5, "learning_rate": 0.01, **(recipe or {})}),
        hyperparameters,
        Shuffled(patterned() if rows is None else rows, 16, 3),
        held_out,
        seed,
        shape=SHAPE,
        losses=weighted_sum([("masked", MaskedTokens())]),
    )


class TestHiding:
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 50, (400, 60)))
    everywhere = torch.ones_like(tokens, dtype=torch.bool)

    def test_a_share_of_each_row_is_found_and_at_least_one_token(self) -> None:
        # 0.15 * 60 = 9 of each row; 0.15 of 2 is less than one
        assert (to_find(self.tokens, self.everywhere, 0.15, 5).sum(dim=1) == 9).all()
        few = self.everywhere.clone()
        few[:, 2:] = False
        found = to_find(self.tokens, few, 0.15, 5)
        assert (found.sum(dim=1) == 1).all() and not found[:, 2:].any()
        assert not to_find(self.tokens, torch.zeros_like(few), 0.15, 5).any()

    def test_eighty_percent_are_blank_ten_are_others_and_ten_stay(self) -> None:
        found = to_find(self.tokens, self.everywhere, 0.5, 5)
        read, blank = as_seen(self.tokens, found, 50, 5)
        assert not (blank & ~found).any() and torch.equal(read[~found], self.tokens[~found])
        total = found.sum().item()
        changed = (read != self.tokens).sum().item() / total
        assert blank.sum().item() / total == pytest.approx(0.8, abs=0.02)
        assert changed == pytest.approx(0.1 * 49 / 50, abs=0.01)
        assert read.min() >= 0 and read.max() < 50

    def test_draws_are_uniform_and_follow_from_row_and_salt_alone(self) -> None:
        found = draws(self.tokens, 7, 0)
        assert found.min() >= 0 and found.max() < 1
        counts = torch.histc(found, 10, 0, 1) / found.numel()
        assert torch.allclose(counts, torch.full((10,), 0.1), atol=0.01)
        assert torch.equal(draws(self.tokens[7:9], 7, 0), found[7:9])
        assert not torch.equal(draws(self.tokens, 8, 0), found) and not torch.equal(
            draws(self.tokens, 7, 1), found
        )
        apart = torch.corrcoef(torch.stack([found.flatten(), draws(self.tokens, 8, 0).flatten()]))[0, 1]
        assert abs(apart) < 0.02


class TestDecoder:
    def test_each_place_looks_at_all_others_and_not_at_what_is_hidden(self) -> None:
        module = Decoder(SHAPE)
        initialise(module, torch.Generator().manual_seed(0))
        tokens = torch.from_numpy(token_rows(2).astype(np.int64))
        hidden = torch.zeros_like(tokens, dtype=torch.bool)
        hidden[:, 4] = True
        with torch.no_grad():
            before = module(tokens, hidden=hidden)
            later, unseen = tokens.clone(), tokens.clone()
            later[:, -1], unseen[:, 4] = 1, 1
            assert not torch.allclose(module(later, hidden=hidden)[:, 0], before[:, 0])
            assert torch.equal(module(unseen, hidden=hidden), before)

    def test_examples_of_a_row_do_not_see_one_another(self) -> None:
        module = Decoder(SHAPE)
        initialise(module, torch.Generator().manual_seed(0))
        rows = to_tensors(instruction_rows(2), CPU)
        tokens, segment = rows["tokens"].long(), rows["segment"].long()
        other = tokens.clone()
        other[:, 6] = 1
        with torch.no_grad():
            one, two = (module(each, 0.0, segment, torch.zeros_like(each).bool()) for each in (tokens, other))
        assert torch.equal(one[:, :5], two[:, :5]) and not torch.equal(one[:, 5:9], two[:, 5:9])


class TestMembers:
    def test_what_follows_from_both_sides_is_learnt(self) -> None:
        made = member(recipe={"learning_rate": 0.005})
        made.train(300)
        assert made.evaluate()[1]["one"] < 0.5 * np.log(VOCABULARY)

    def test_the_score_hides_the_same_tokens_each_time_whatever_is_searched(self) -> None:
        made = member()
        made.train(3)
        found = made.evaluate()
        assert made.evaluate() == found
        made.adopt({"objective": {"share": 0.6}, "label_smoothing": 0.2, "z_loss": 0.1, "dropout": 0.3})
        assert made.evaluate() == found

    def test_only_answers_are_hidden(self) -> None:
        made, rows = member(), to_tensors(instruction_rows(6), CPU)
        made.module.eval()
        with torch.no_grad():
            parts = made.parts(made.module, rows)
            losses = made.loss(made.module, rows, made.sober)
        there = ~parts.isnan()
        assert not there[rows["mask"] == 0].any() and (there.sum(dim=1) == 1).all()
        assert torch.allclose(parts.nanmean(dim=1), losses)

    def test_another_step_hides_others_and_a_copy_hides_the_same(self) -> None:
        donor, copy = member(seed=1), member(seed=2)
        donor.train(3)
        hand_in(copy.load, handed_out(donor.state), {})
        assert donor.train(2) == copy.train(2) and equal(handed_out(donor.state), handed_out(copy.state))

    def test_members_with_other_shares_train_as_a_stack(self) -> None:
        members = [member(seed=place, objective={"share": 0.1 * (place + 1)}) for place in range(3)]
        assert all(stackable(members[0], each) for each in members[1:])
        stack = Stack(members)
        first = stack.train(5)
        assert all(np.isfinite(first)) and np.mean(stack.train(60)) < np.mean(first)
        assert len({score for score, _ in stack.evaluate()}) == 3
        assert [stack.members[0].evaluate()[0]] == pytest.approx([stack.evaluate_together("validation")[0][0]])
