import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from shoal.trainables.arrays import to_tensors
from shoal.trainables.batches import Shuffled
from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.pretrained.low_rank import adapters
from shoal.trainables.pretrained.rows import mean_counted, seen
from shoal.trainables.stack import Stack, stackable
from tests.helpers.members import equal
from tests.helpers.pretrained import causal, instruction_rows, tiny_llama, token_rows

CPU = torch.device("cpu")


def losses(member, rows) -> torch.Tensor:
    member.module.eval()
    with torch.no_grad():
        found = seen(to_tensors(rows, CPU))
        return mean_counted(member.token_losses(member.module, found), found.counted)


def trained(steps: int = 3, **settings):
    member = causal(**settings)
    member.train(steps)
    return member


class TestRows:
    def test_positions_and_attention_begin_anew_in_each_example(self) -> None:
        batch = {
            "tokens": torch.arange(6)[None],
            "mask": torch.tensor([[1, 1, 0, 1, 1, 0]]),
            "segment": torch.tensor([[1, 1, 2, 2, 2, 0]]),
        }
        found = seen(batch)
        assert found.positions.tolist() == [[0, 1, 0, 1, 2, 0]]
        # a place counts where the next token is an answer's of the same example: 0 -> 1, 2 -> 3, 3 -> 4
        assert found.counted.tolist() == [[1, 0, 1, 1, 0, 0]]
        assert found.attention[0, 0].int().tolist() == [
            [1, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0],
            [0, 0, 1, 0, 0, 0],
            [0, 0, 1, 1, 0, 0],
            [0, 0, 1, 1, 1, 0],
            [0, 0, 0, 0, 0, 1],
        ]

    def test_a_rows_loss_is_the_mean_over_what_counts(self) -> None:
        given = torch.tensor([[4.0, 2.0, 9.0], [1.0, 1.0, 1.0]])
        # (4 + 2) / 2 = 3; nothing counts in the second
        counted = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
        assert mean_counted(given, counted).tolist() == [3.0, 0.0]

    def test_a_packed_example_has_the_loss_that_it_has_alone(self) -> None:
        member, rows = trained(), instruction_rows(3)
        found = seen(to_tensors(rows, CPU))
        with torch.no_grad():
            packed = member.token_losses(member.module.eval(), found)
        for start, end in ((0, 5), (5, 9)):
            alone = {name: array[:, start:end] for name, array in rows.items()}
            alone["segment"] = np.ones_like(alone["segment"])
            counted = found.counted[:, start:end]
            assert torch.allclose(losses(member, alone), mean_counted(packed[:, start:end], counted), atol=1e-5)

    def test_what_is_padded_changes_nothing(self) -> None:
        member, rows = trained(), instruction_rows(3)
        other = rows | {"tokens": rows["tokens"].copy()}
        other["tokens"][:, 9:] = 0
        assert torch.equal(losses(member, rows), losses(member, other))

    def test_a_row_without_an_answer_has_no_loss_and_no_gradient(self) -> None:
        rows = instruction_rows(4)
        rows["mask"][0] = 0
        member = causal(rows=rows, recipe={"dropout": 0.1})
        assert losses(member, rows)[0] == 0
        assert np.isfinite(member.train(2))

    def test_losses_are_those_of_transformers(self) -> None:
        member, rows = trained(), token_rows(3)
        tokens = torch.from_numpy(rows.astype(np.int64))
        with torch.no_grad():
            logits = member.module.eval()(input_ids=tokens).logits[:, :-1]
        expected = torch.nn.functional.cross_entropy(logits.mT, tokens[:, 1:], reduction="none").mean(dim=1)
        assert torch.allclose(losses(member, rows), expected, atol=1e-5)


class TestMembers:
    def test_an_adapter_begins_as_the_model_itself(self) -> None:
        rows = token_rows(3)
        assert torch.equal(losses(causal(), rows), losses(causal(adapter=None), rows))

    @pytest.mark.parametrize("rows", [token_rows(8), instruction_rows(8)], ids=["tokens", "instructions"])
    @pytest.mark.parametrize("whole", [False, True], ids=["adapter", "all weights"])
    def test_it_learns(self, rows, whole: bool) -> None:
        member = causal(rows=rows, batch=8, **({"adapter": None} if whole else {}))
        first = member.train(1)
        member.train(30)
        assert member.train(1) < first - 0.1

    def test_members_share_the_base_and_nothing_of_it_is_in_a_state(self) -> None:
        one, other = causal(0), causal(1)
        base = "model.layers.0.mlp.up_proj.weight"
        assert one.module.get_parameter(base) is other.module.get_parameter(base)
        assert {name.rpartition(".")[2] for name in one.state()["weights"]} == {"down", "up"}
        before = one.module.get_parameter(base).clone()
        one.train(3)
        assert torch.equal(before, other.module.get_parameter(base))

    def test_all_weights_hold_tied_ones_once(self) -> None:
        member = causal(adapter=None)
        assert "lm_head.weight" not in member.state()["weights"]
        assert "lm_head.weight" in causal(adapter=None, path=tiny_llama(tied=False)).state()["weights"]

    @pytest.mark.parametrize("whole", [False, True], ids=["adapter", "all weights"])
    def test_a_clone_goes_on_as_its_donor(self, whole: bool) -> None:
        more = {"adapter": None} if whole else {}
        donor, clone = trained(seed=0, **more), trained(seed=1, **more)
        hand_in(clone.load, handed_out(donor.state), {})
        assert clone.train(4) == donor.train(4)
        assert equal(clone.state(), donor.state())

    def test_frozen_weights_stay_and_are_in_no_state(self) -> None:
        member = causal(adapter=None, given={"freeze": ("model.embed_tokens.*", "model.layers.0.*")})
        before = member.module.model.layers[0].mlp.up_proj.weight.clone()
        member.train(3)
        assert torch.equal(before, member.module.model.layers[0].mlp.up_proj.weight)
        assert not any("layers.0" in name for name in member.state()["weights"])

    def test_fresh_weights_are_the_members_own(self) -> None:
        given = {"fresh": ("lm_head.*",)}
        members = [causal(seed, None, path=tiny_llama(tied=False), given=given) for seed in (0, 1)]
        heads = [member.module.lm_head.weight for member in members]
        bodies = [member.module.model.layers[0].mlp.up_proj.weight for member in members]
        assert not torch.equal(*heads) and torch.equal(*bodies)

    @pytest.mark.parametrize("key", ["fresh", "freeze"])
    def test_a_pattern_that_fits_nothing_is_refused(self, key: str) -> None:
        with pytest.raises(ValueError, match="none fits nothing"):
            causal(adapter=None, given={key: ("nothing",)})


class TestRank:
    def test_ranks_that_are_not_in_use_stay_zero(self) -> None:
        member = causal(rank=2, weight_decay=0.5)
        member.train(6)
        for _, layer in adapters(member.module):
            assert not layer.down[2:].any() and not layer.up[:, 2:].any()
            assert layer.down[:2].all() and layer.up[:, :2].any()

    def test_a_full_rank_of_two_equals_two_of_four(self) -> None:
        from tests.helpers.pretrained import ADAPTER, LowRank

        few = causal(adapter=LowRank(rank=2, alpha=ADAPTER.scale * 2))
        many = causal(rank=2)
        with torch.no_grad():
            for (_, one), (_, other) in zip(adapters(few.module), adapters(many.module), strict=True):
                one.down.copy_(other.down[:2])
        assert few.train(5) == pytest.approx(many.train(5), abs=1e-6)

    def test_a_smaller_rank_cuts_off_and_a_larger_one_begins_afresh(self) -> None:
        donor, rows = trained(5), token_rows(3)
        small, large = causal(1, rank=2), causal(1, rank=4)
        hand_in(small.load, handed_out(donor.state), {"rank": 2})
        for (_, layer), (_, whole) in zip(adapters(small.module), adapters(donor.module), strict=True):
            assert torch.equal(layer.down[:2], whole.down[:2]) and not layer.down[2:].any()
            slots = small.optimiser.state[layer.up]
            assert slots["exp_avg"][:, :2].any() and not slots["exp_avg"][:, 2:].any()
        before = losses(small, rows)
        hand_in(large.load, handed_out(small.state), {"rank": 4})
        assert torch.equal(losses(large, rows), before)
        for _, layer in adapters(large.module):
            assert layer.down[2:].all() and not layer.up[:, 2:].any()
        large.train(2)
        assert all(layer.up[:, 2:].any() for _, layer in adapters(large.module))

    def test_the_score_has_no_rank_in_it(self) -> None:
        member = trained(3, rank=2)
        found = member.evaluate()
        member.numbers = member.numbers | {"rank": 4.0, "dropout": 0.5, "label_smoothing": 0.3}
        assert member.evaluate() == found

    def test_more_than_is_stored_is_refused(self) -> None:
        with pytest.raises(ValueError, match="among the 4"):
            causal(rank=5)


def numbers(place: int) -> dict[str, float]:
    return {
        "learning_rate": 0.002 * (1 + place),
        "weight_decay": 0.2 * place,
        "label_smoothing": 0.1 * place,
        "z_loss": 1e-3 * place,
        "rank": 4 - place,
        "clip": 0.3 + 0.4 * place,
    }


def test_the_recipe_too_has_layers_computed_again() -> None:
    plain, again = causal(), causal(recipe={"gradient_checkpointing": True})
    assert again.module.is_gradient_checkpointing and not plain.module.is_gradient_checkpointing
    assert again.train(3) == pytest.approx(plain.train(3), abs=1e-6)


class TestStacks:
    @pytest.mark.parametrize("accumulate", [1, 3])
    @pytest.mark.parametrize("rows", [token_rows(), instruction_rows()], ids=["tokens", "instructions"])
    @pytest.mark.parametrize("checkpointed", [False, True])
    def test_a_stack_trains_as_members_alone(self, rows, checkpointed: bool, accumulate: int) -> None:
        def make() -> list:
            given, recipe = {"gradient_checkpointing": checkpointed}, {"accumulate": accumulate}
            more = {"rows": rows, "given": given, "recipe": recipe}
            return [causal(place, **more, **numbers(place)) for place in range(3)]

        alone, stacked = make(), make()
        alone[2].train(2)
        stacked[2].train(2)
        stack = Stack(stacked)
        assert stack.train(5) == pytest.approx([member.train(5) for member in alone], abs=1e-5)
        for one, other in zip(alone, stacked, strict=True):
            mine, theirs = one.state(), other.state()
            for name, array in mine["weights"].items():
                assert np.allclose(array, theirs["weights"][name], atol=1e-5), name
        assert stack.evaluate() == [
            (pytest.approx(member.evaluate()[0], abs=1e-5), pytest.approx(member.evaluate()[1], abs=1e-5))
            for member in alone
        ]

    def test_dropout_is_each_members_own(self) -> None:
        rates = [0.0, 0.5, 0.9]
        members = [causal(0, dropout=rate) for rate in rates]
        for member in members:
            with torch.no_grad():
                for _, layer in adapters(member.module):
                    layer.up.fill_(0.3)
        alone = causal(0)
        with torch.no_grad():
            for _, layer in adapters(alone.module):
                layer.up.fill_(0.3)
        found = Stack(members).train(1)
        assert found[0] == pytest.approx(alone.train(1), abs=1e-5)
        assert len({round(loss, 4) for loss in found}) == 3

    def test_an_exploit_within_a_stack_is_one_through_the_state(self) -> None:
        pairs = [[causal(place, **numbers(place)) for place in range(2)] for _ in range(2)]
        stacks = [Stack(pair) for pair in pairs]
        for stack in stacks:
            stack.train(3)
        stacks[0].gather([0, 0], [numbers(0), numbers(1) | {"rank": 2}])
        hand_in(pairs[1][1].load, handed_out(pairs[1][0].state), numbers(1) | {"rank": 2})
        assert stacks[0].train(3) == stacks[1].train(3)
        for one, other in zip(*pairs, strict=True):
            assert equal(one.state(), other.state())

    def test_a_stack_keeps_no_base(self) -> None:
        members = [causal(place) for place in range(2)]
        stack = Stack(members)
        own = sum(weight.numel() for weight in members[0].weights().values())
        assert not stack.kept and stack.weights.shape == (2, own)
        stack.train(2)
        assert stackable(*members) and stackable(causal(5), members[0])

    def test_other_ranks_stored_other_bases_and_all_weights_are_not_stacked(self) -> None:
        from tests.helpers.pretrained import LowRank

        one = causal()
        assert not stackable(one, causal(adapter=LowRank(rank=2)))
        assert not stackable(one, causal(adapter=None))
        assert not stackable(one, causal(path=tiny_llama(tied=False)))
        assert not stackable(one, causal(given={"gradient_checkpointing": True}))


class Weighed(Shuffled):
    """Batches whose weights depend on all losses of a batch."""

    def next(self):
        rows = super().next()
        return {"rows": rows, "weights": np.arange(1, self.batch + 1, dtype=np.float32)}

    def weigh(self, losses, weights):
        return weights * losses / losses.sum()

    def observe(self, losses) -> None:
        self.seen = losses


@pytest.mark.parametrize("rows", [token_rows(), instruction_rows()], ids=["tokens", "instructions"])
def test_weights_of_rows_hold_in_parts_and_in_stacks(rows) -> None:
    def make(seed: int, accumulate: int):
        member = causal(seed, rows=rows, recipe={"accumulate": accumulate, "dropout": 0.0})
        member.batches = Weighed(rows, 4, seed)
        return member

    whole, parts = make(0, 1), make(0, 3)
    assert whole.train(3) == pytest.approx(parts.train(3), abs=1e-5)
    assert np.allclose(whole.batches.seen, parts.batches.seen, atol=1e-5)
    stacked = [make(0, 3), make(1, 3)]
    Stack(stacked).train(3)
    for name, array in whole.state()["weights"].items():
        assert np.allclose(array, stacked[0].state()["weights"][name], atol=1e-5)
    assert np.allclose(whole.batches.seen, stacked[0].batches.seen, atol=1e-5)


class TestPrecision:
    @pytest.mark.parametrize("whole", [False, True], ids=["adapter", "all weights"])
    def test_bfloat16_stays_near_float32_with_float32_weights(self, whole: bool) -> None:
        more = {"adapter": None} if whole else {}
        exact, rough = causal(**more), causal(recipe={"precision": "bfloat16"}, **more)
        assert exact.train(8) == pytest.approx(rough.train(8), abs=0.05)
        assert {str(array.dtype) for array in rough.state()["weights"].values()} == {"float32"}
        assert {str(slots["exp_avg"].dtype) for slots in rough.state()["optimiser"].values()} == {"float32"}

    def test_and_in_a_stack(self) -> None:
        recipe = {"precision": "bfloat16"}
        alone, stacked = ([causal(place, recipe=recipe) for place in range(2)] for _ in range(2))
        assert Stack(stacked).train(4) == pytest.approx([member.train(4) for member in alone], abs=0.01)

    def test_frozen_layers_lie_in_memory_as_they_compute(self) -> None:
        module = causal(recipe={"precision": "bfloat16"}).module
        assert module.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
        assert module.model.embed_tokens.weight.dtype == torch.float32

    def test_a_base_is_mapped_from_its_file(self) -> None:
        from shoal.trainables.pretrained.folder import mapped

        path = tiny_llama(dtype="bfloat16")
        module = causal(path=path, recipe={"precision": "bfloat16"}).module
        name = "model.layers.0.mlp.up_proj.weight"
        assert torch.equal(module.get_parameter(name), mapped(path)[name])
        assert np.isfinite(causal(path=path).train(2))
