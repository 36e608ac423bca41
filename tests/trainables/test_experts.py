"""Experts of a decoder: the gate and its loss by hand, how it cools, and what of a decoder it leaves alone."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from shoal.trainables.arrays import to_tensors
from shoal.trainables.batches import Shuffled
from shoal.trainables.decoder import Decoder, DecoderBlock, ExpertBlock, initialise
from shoal.trainables.experts import Gate, largest, temperature_at, unevenness, weighed
from shoal.trainables.growth import growth_between
from shoal.trainables.influence.ekfac import fit_factors, influences, solved_queries
from shoal.trainables.influence.likelihoods import NextTokens
from shoal.trainables.influence.traces import traced_layers
from shoal.trainables.language import LanguageModel
from shoal.trainables.objectives.masked import MaskedTokens
from shoal.trainables.objectives.weighted import weighted_sum
from shoal.trainables.pretrained.own_decoder import own_outline
from shoal.trainables.retrieval_heads import attending_to_all
from shoal.trainables.settings import Cooling, DecoderShape, Recipe
from shoal.trainables.stack import Stack, stacks
from shoal.trainables.text_tower import states_both_ways
from tests.helpers.members import EXPERTS, HELD_OUT, SHAPE, Rows, equal, gated, language
from tests.helpers.pretrained import LENGTH, VOCABULARY, instruction_rows

TOKENS = torch.from_numpy(np.random.default_rng(0).integers(0, 31, (4, 12)))
ONE = torch.tensor(1.0)


def gate(kind: str, weight: list[list[float]], bias: list[float]) -> Gate:
    made = Gate(len(weight[0]), len(weight), kind)
    made.weight.data, made.bias.data = torch.tensor(weight), torch.tensor(bias)
    return made


def model(shape: DecoderShape = EXPERTS, seed: int = 0) -> Decoder:
    made = Decoder(shape)
    initialise(made, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(10) if weight.dim() > 1 else None
    return made.eval()


class TestGate:
    def test_by_hand(self) -> None:
        # weights 3, 1 of odds at temperature 1; squared to 9, 1 at 1/2
        linear = gate("linear", [[math.log(3)], [0.0]], [0.0, 0.0])
        x = torch.tensor([[1.0]])
        assert linear(x, ONE).tolist() == [pytest.approx([0.75, 0.25])]
        assert linear(x, ONE / 2).tolist() == [pytest.approx([0.9, 0.1])]
        # tanh(atanh(0.5)) + log(3) - 0.5 is log(3) too; sigmoid(0) = 0.5 on both sides cancels
        active = gate("tanh", [[math.atanh(0.5)], [0.0]], [math.log(3) - 0.5, 0.0])
        assert active(x, ONE).tolist() == [pytest.approx([0.75, 0.25])]
        sigmoid = gate("sigmoid", [[0.0], [0.0]], [math.log(3), 0.0])
        assert sigmoid(x, ONE).tolist() == [pytest.approx([0.75, 0.25])]

    @pytest.mark.parametrize("kind", ["linear", "tanh", "sigmoid"])
    def test_a_gate_scaled_with_its_temperature_is_the_same_only_where_it_is_linear(self, kind: str) -> None:
        torch.manual_seed(0)
        x, made = torch.randn(9, 6), gate(kind, torch.randn(3, 6).tolist(), [0.3, 0.1, -0.2])
        before = made(x, ONE)
        scaled = gate(kind, (3 * made.weight).tolist(), (3 * made.bias).tolist())(x, 3 * ONE)
        apart = float((scaled - before).detach().abs().max())
        assert apart < 1e-6 if kind == "linear" else apart > 0.05

    @pytest.mark.parametrize("kind", ["linear", "tanh", "sigmoid"])
    def test_a_hot_gate_is_even_and_a_cold_one_has_one_expert(self, kind: str) -> None:
        torch.manual_seed(0)
        x, made = torch.randn(9, 6), gate(kind, torch.randn(3, 6).tolist(), [0.3, 0.1, -0.2])
        assert torch.allclose(made(x, 1e6 * ONE), torch.full((9, 3), 1 / 3), atol=1e-5)
        cold = made(x, 1e-6 * ONE)
        assert torch.allclose(cold.max(dim=-1).values, torch.ones(9)) and torch.allclose(
            cold, functional.one_hot(made(x, ONE).argmax(dim=-1), 3).float()
        )

    def test_the_temperature_falls_evenly_by_its_logarithm(self) -> None:
        found = [temperature_at(step, 5, 4.0, 0.25) for step in range(7)]
        assert found == pytest.approx([4, 2, 1, 0.5, 0.25, 0.25, 0.25])
        assert temperature_at(0, 1, 4.0, 0.25) == pytest.approx(4)

    def test_the_largest_shares_by_hand(self) -> None:
        shares = torch.tensor([0.5, 0.3, 0.2])
        assert largest(shares, 2).tolist() == pytest.approx([0.625, 0.375, 0])
        assert largest(shares, 1).tolist() == [1, 0, 0]
        assert largest(shares, 0) is shares and largest(shares, 3) is shares

    def test_how_unevenly_rows_use_experts_by_hand(self) -> None:
        shares = torch.tensor(
            [[[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]], [[0.75, 0.25], [0.75, 0.25]]]]
        )
        # 2 (1/4 + 1/4) - 1, 2 (1) - 1, and 2 (9/16 + 1/16) - 1
        assert unevenness(shares).tolist() == pytest.approx([0, 1, 0.25])
        assert unevenness(shares, torch.tensor([[1, 0]] * 3)).tolist() == pytest.approx([1, 1, 0.25])
        assert unevenness(shares, torch.zeros(3, 2)).tolist() == [0, 0, 0]
        two = torch.cat([shares, torch.full_like(shares, 0.5)])  # a mean of layers
        assert unevenness(two).tolist() == pytest.approx([0, 0.5, 0.125])


class TestDecoder:
    def test_one_expert_is_the_decoder_as_ever(self) -> None:
        made = model(SHAPE)
        assert all(type(block) is DecoderBlock for block in made.blocks)
        assert not any("gate" in name or "temperature" in name for name in made.state_dict())
        assert "gate_end" not in language().numbers

    def test_a_block_is_the_sum_of_its_experts_by_their_shares(self) -> None:
        shape = replace(EXPERTS, active_experts=0)
        block, x = model(shape).blocks[0], torch.randn(2, 5, 16)
        assert isinstance(block, ExpertBlock)
        shares = block.gate(x, ONE)
        whole = block.fall(weighed(functional.relu(block.rise(x)).square(), shares))
        each = zip(block.rise.weight.chunk(3), block.fall.weight.chunk(3, dim=1), strict=True)
        fed = [functional.linear(functional.relu(functional.linear(x, up)).square(), down) for up, down in each]
        found = sum(shares[..., place, None] * part for place, part in enumerate(fed))
        assert torch.allclose(whole, found, atol=1e-5)

    def test_judged_it_has_its_last_temperature_and_the_active_experts(self) -> None:
        made = model()
        made.temperatures.copy_(torch.tensor([5.0, 0.2]))
        before = made(TOKENS)
        made.temperatures[0] = 0.7
        assert torch.equal(made(TOKENS), before) and not torch.equal(made(TOKENS, cooling=True)[0], before)
        dense = model(replace(EXPERTS, active_experts=0))
        dense.load_state_dict(made.state_dict())
        assert not torch.allclose(dense(TOKENS), before)
        dense.temperatures.copy_(torch.tensor([0.2, 9.0]))
        made.active = 0
        dense_at_the_step = dense(TOKENS, cooling=True)[0]
        dense.temperatures[1] = 0.2
        assert torch.equal(dense_at_the_step, dense(TOKENS))

    def test_rows_use_experts_by_themselves(self) -> None:
        made = model()
        together = made(TOKENS, cooling=True)[1]
        apart = torch.cat([made(row[None], cooling=True)[1] for row in TOKENS])
        assert together.shape == (4,) and torch.allclose(together, apart, atol=1e-6) and (together > 0).all()

    def test_what_reads_decoders_reads_experts(self) -> None:
        made, reading = model(), own_outline({"shape": {**vars(EXPERTS)}})
        reading.load_state_dict(made.state_dict())
        assert torch.allclose(reading.eval()(TOKENS).logits, made(TOKENS), atol=1e-5)
        there = torch.ones_like(TOKENS, dtype=torch.bool)
        assert states_both_ways(made, TOKENS, there, 0.0).shape == (4, 12, 16)
        with attending_to_all(made, [(0, 0)]):
            leveled = made(TOKENS)
        assert not torch.allclose(leveled, made(TOKENS))

    def test_influence_goes_by_the_experts_and_leaves_the_gate_out(self) -> None:
        made = model().double()
        layers, likelihood = traced_layers(made), NextTokens(made)
        assert any("rise" in name for name in layers) and not any("gate" in name for name in layers)
        factors = fit_factors(likelihood, layers, [TOKENS], torch.Generator().manual_seed(0))
        queries = solved_queries(likelihood, layers, factors, [TOKENS[:1]])
        found = influences(likelihood, layers, queries, TOKENS)
        assert found.shape == (4, 1) and int(found.argmax()) == 0, "a row helps itself the most"

    def test_it_neither_grows_nor_shrinks(self) -> None:
        assert growth_between(EXPERTS, EXPERTS).width == 1
        assert growth_between(EXPERTS, replace(EXPERTS, active_experts=1)).depth == 1
        for change in ({"layers": 4}, {"width": 32, "heads": 4}, {"experts": 2}, {"gate": "linear"}):
            with pytest.raises(ValueError, match="a decoder with experts must keep its layers"):
                growth_between(EXPERTS, replace(EXPERTS, **change))
        with pytest.raises(ValueError, match="it has experts 1 and would have 3"):
            growth_between(SHAPE, replace(EXPERTS, active_experts=0))

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"experts": 0}, "experts must be at least 1, but got 0"),
            ({"gate": "relu"}, "gate must be one of linear, tanh, sigmoid, but got 'relu'"),
            ({"active_experts": 4}, r"active_experts must be from 0 to experts \(3\), but got 4"),
        ],
    )
    def test_shapes_that_cannot_be(self, wrong: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            replace(EXPERTS, **wrong)


def member(seed: int = 0, recipe: dict[str, Any] | None = None, **numbers: Any) -> LanguageModel:
    given = Recipe(**{"steps": 40, "warmup": 4, **(recipe or {})})
    return LanguageModel(given, numbers, Rows(), HELD_OUT, seed, shape=EXPERTS)


class TestMembers:
    def test_the_gate_cools_over_the_run_by_searched_numbers(self) -> None:
        one = member(gate_start=4.0, gate_end=0.25)
        assert one.module.temperatures.tolist() == [2.0, pytest.approx(0.3)]
        seen = []
        for _ in range(4):
            one.train(10)
            seen.append(one.module.temperatures.tolist())
        assert [now for now, _ in seen] == pytest.approx(
            [temperature_at(step, 40, 4.0, 0.25) for step in (9, 19, 29, 39)]
        )
        assert seen[-1] == pytest.approx([0.25, 0.25])

    def test_only_the_last_temperature_counts_where_rows_are_judged(self) -> None:
        one = gated(1)
        one.train(5)
        before = one.evaluate()
        one.adopt({"gate_start": 30.0, "gate_balance": 5.0, "gate_end": one.numbers["gate_end"]})
        one.begin_step(3)
        assert one.evaluate() == before

    def test_an_uneven_row_loses_more(self) -> None:
        found = [member(gate_balance=weight) for weight in (0.0, 10.0)]
        for each in found:
            each.module.load_state_dict(model().state_dict())
            each.module.train()
        batch = to_tensors(Rows().next(), found[0].device)
        plain, more = (each.loss(each.module, batch, each.numbers) for each in found)
        uneven = found[0].module(batch.long(), cooling=True)[1]
        assert torch.allclose(more - plain, 10 * uneven, atol=1e-5) and plain.shape == (4,)

    def test_a_copy_and_a_resume_go_on_alike(self) -> None:
        whole, stopped = gated(1), gated(1)
        whole.train(12)
        stopped.train(5)
        again = gated(1)
        again.load(stopped.state(), stopped.hyperparameters)
        again.train(7)
        assert equal(again.state(), whole.state()) and again.evaluate() == whole.evaluate()

    @pytest.mark.parametrize(
        "recipe", [{"accumulate": 2}, {"bits": 8}, {"density": 0.5}, {"prior": 0.1}, {"dropout": 0.0}]
    )
    def test_a_stack_of_them_trains_as_they_do(self, recipe: dict[str, Any]) -> None:
        def make() -> list[LanguageModel]:
            ends = (0.1, 0.2, 0.3)
            return [member(seed, recipe, gate_start=2.0 + seed, gate_end=end) for seed, end in enumerate(ends)]

        stacked, alone = make(), make()
        assert len(stacks(dict(enumerate(stacked)))) == 1
        stack = Stack(stacked)
        assert stack.train(6) == pytest.approx([each.train(6) for each in alone], abs=1e-5)
        scores = [score for score, _ in stack.evaluate()]
        assert scores == pytest.approx([each.evaluate()[0] for each in alone], abs=1e-5)

    def test_bits_and_masks_leave_the_gate_whole(self) -> None:
        one = member(recipe={"bits": 8, "density": 0.5})
        assert not any("gate" in name for name in one.applied.masked)
        assert bool((one.module.blocks[0].gate.weight != 0).all())

    def test_rows_of_instructions_and_hidden_tokens(self) -> None:
        for losses in (None, weighted_sum([("masked", MaskedTokens())])):
            shape = replace(EXPERTS, vocabulary=VOCABULARY, sequence_length=LENGTH)
            rows = instruction_rows(8, 0)
            found = LanguageModel(
                Recipe(steps=40, warmup=4),
                {"gate_balance": 0.5},
                Shuffled(rows, 4, 0),
                {"validation": {"one": rows}},
                0,
                shape=shape,
                losses=losses,
            )
            assert math.isfinite(found.train(4)) and math.isfinite(found.evaluate()[0])

    def test_numbers_that_cannot_be(self) -> None:
        with pytest.raises(ValueError, match="gate_end is of a gate between experts, but there is one expert"):
            language(gate_end=0.1)
        for name in ("gate_start", "gate_end"):
            with pytest.raises(ValueError, match=f"{name} must be above 0, but got 0"):
                Cooling(**{name: 0.0})
        with pytest.raises(ValueError, match="gate_balance must be at least 0, but got -1"):
            Cooling(gate_balance=-1.0)
