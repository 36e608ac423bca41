"""Adapters that begin with what only rows to forget need, while the model stays what it is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from safetensors.torch import load_file

from shoal.cluster.storage import Store
from shoal.search.errors import InputError
from shoal.search.members.classes import class_of
from shoal.search.records.pretrained import write_adapter, write_whole
from shoal.search.runs.dry import try_out
from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.objectives.forget import Forget
from shoal.trainables.objectives.weighted import weighted_sum
from shoal.trainables.pretrained.causal import CausalModel
from shoal.trainables.pretrained.fila import fisher, row_weights, weighted_product
from shoal.trainables.pretrained.folder import open_base
from shoal.trainables.pretrained.low_rank import adapters
from shoal.trainables.pretrained.peft_files import read_adapter
from shoal.trainables.pretrained.settings import LowRank, Pretrained
from shoal.trainables.settings import Recipe
from shoal.trainables.stack import Stack
from tests.helpers.members import equal
from tests.helpers.pretrained import tiny_llama, token_rows
from tests.search.members.test_causal_runs import QUIET, load
from tests.trainables.test_forgetting import Whole, held_out, rows_of

ADAPTER = LowRank(rank=3, alpha=6.0, targets=("q_proj", "up_proj"), begin="fila")
KNOWN = {"forget": token_rows(4, 8), "retain": token_rows(4, 9)}


def member(seed: int = 0, **hyperparameters: Any) -> CausalModel:
    rows = rows_of("tokens")
    made = CausalModel(
        Recipe(steps=80, warmup=2, learning_rate=0.01),
        hyperparameters,
        Whole(rows, 8),
        held_out(rows),
        seed,
        pretrained=Pretrained(tiny_llama(), ADAPTER),
        losses=weighted_sum([("forget", Forget(groups=("secret",)))]),
        known_rows=KNOWN,
    )
    made.targets = ["plain"]
    return made


def logits(module: Any, rows: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(input_ids=torch.from_numpy(rows.astype(np.int64))).logits


class TestProducts:
    weight = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([0.2, 5.0, 1.0, 0.1, 3.0, 1.0, 0.5, 2.0])

    def apart(self, down: torch.Tensor, up: torch.Tensor, scale: float) -> float:
        return float((self.rows[:, None] * (self.weight - scale * up @ down)).norm())

    def test_a_matrix_of_one_column_by_hand(self) -> None:
        """W = (3, 4) with row weights (1, 2), rank 1 and scale 2: the product is the matrix itself.

        diag(s) W = (3, 8), its length is sqrt(73); with sign, down = sqrt(sqrt(73) / 2), and up = W / (2 down).
        """
        down, up = weighted_product(torch.tensor([[3.0], [4.0]]), torch.tensor([1.0, 2.0]), 1, 2.0)
        assert abs(down.item()) == pytest.approx((73**0.5 / 2) ** 0.5, rel=1e-6)
        assert (2 * up @ down).flatten().tolist() == pytest.approx([3.0, 4.0], rel=1e-6)

    def test_no_product_of_its_rank_is_nearer_in_the_weighted_norm(self) -> None:
        found = self.apart(*weighted_product(self.weight, self.rows, 2, 1.5), 1.5)
        tail = torch.linalg.svdvals(self.rows[:, None] * self.weight)[2:].norm()
        plain = self.apart(*weighted_product(self.weight, torch.ones(8), 2, 1.5), 1.5)
        assert found == pytest.approx(float(tail), rel=1e-5) and found < 0.95 * plain

    def test_a_full_rank_leaves_nothing(self) -> None:
        assert self.apart(*weighted_product(self.weight, self.rows, 6, 0.5), 0.5) < 1e-5

    def test_row_weights_are_roots_of_summed_ratios_and_small_values_count(self) -> None:
        """Ratios (4, 0) and (1, 3) sum to 4 and 4, whose roots are 2, also where all values are of 1e-7."""
        forget, retain = torch.tensor([[4.0, 0.0], [1.0, 3.0]]), torch.ones(2, 2)
        assert row_weights(forget, retain).tolist() == pytest.approx([2.0, 2.0], rel=1e-3)
        tiny = row_weights(1e-7 * forget, 1e-7 * retain)
        assert tiny.tolist() == pytest.approx([2.0, 2.0], rel=1e-3)
        assert row_weights(torch.zeros(2, 2), retain).tolist() == [1.0, 1.0]

    def test_information_is_of_rows_and_not_of_their_mean(self) -> None:
        base = open_base(tiny_llama(), "float32", torch.device("cpu"))
        layers = {"model.layers.0.mlp.up_proj": base.model.layers[0].mlp.up_proj}
        one, other = (fisher(base, layers, KNOWN["forget"][place : place + 1]) for place in (0, 1))
        both = fisher(base, layers, KNOWN["forget"][:2])
        for name in layers:
            assert torch.allclose(both[name], (one[name] + other[name]) / 2, rtol=1e-4, atol=1e-12)
        assert not any(weight.requires_grad for weight in base.parameters())


class TestMembers:
    def test_the_model_begins_as_it_was_and_the_base_stays_shared(self) -> None:
        one, other = member(0), member(1)
        base = open_base(tiny_llama(), "float32", torch.device("cpu"))
        rows = token_rows(3)
        assert (logits(one.module, rows) - logits(base, rows)).abs().max() < 1e-6
        name = "model.layers.0.mlp.up_proj"
        assert one.module.get_submodule(name).base.weight is base.get_submodule(name).weight
        for (_, mine), (_, theirs) in zip(adapters(one.module), adapters(other.module), strict=True):
            assert torch.equal(mine.down, theirs.down) and mine.up.abs().max() > 0

    def test_it_forgets_and_a_copy_goes_on_bit_for_bit(self) -> None:
        donor, copy = member(1), member(2)
        donor.train(3)
        hand_in(copy.load, handed_out(donor.state), {})
        assert donor.train(2) == copy.train(2) and equal(handed_out(donor.state), handed_out(copy.state))
        donor.train(60)
        losses = donor.evaluate()[1]
        assert losses["secret"] > losses["plain"] + 0.5

    def test_a_stack_trains_as_its_members_alone(self) -> None:
        def made(place: int) -> CausalModel:
            return member(place, objective={"retain": 0.5 * (place + 1)})

        stack = Stack([made(place) for place in range(2)])
        for place, loss in enumerate(stack.train(4)):
            assert made(place).train(4) == pytest.approx(loss, rel=1e-4)

    def test_exports_hold_what_was_taken_off(self, tmp_path) -> None:
        trained = member()
        trained.train(5)
        weights, given = trained.state()["weights"], trained.pretrained
        write_adapter(given, weights, tiny_llama(), Store(str(tmp_path / "adapter")))
        write_whole(given, weights, Store(str(tmp_path / "whole")), {})
        wanted, rows = logits(trained.module, token_rows(3)), token_rows(3)
        from transformers import AutoModelForCausalLM

        merged = AutoModelForCausalLM.from_pretrained(str(tmp_path / "whole"))
        assert torch.allclose(logits(merged, rows), wanted, atol=1e-4)
        parts, scale = read_adapter(str(tmp_path / "adapter"))
        assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["r"] == 6
        name = "model.layers.1.mlp.up_proj"
        down, up = parts[name]
        before = load_file(str(Path(tiny_llama(), "model.safetensors")))[f"{name}.weight"]
        after = load_file(str(tmp_path / "whole/model.safetensors"))[f"{name}.weight"]
        assert torch.allclose(before + scale * up @ down, after, atol=1e-5)


BEGUN = {"kind": "lora", "rank": 4, "alpha": 8, "begin": "fila"}
FORGETS = {"objective": {"kind": "forget", "groups": ["one"]}, "price": 0.0}
RATE = {"learning_rate": {"kind": "float", "low": 0.001, "high": 0.03, "log": True}}


def test_a_run_begins_apart_from_samples_of_its_rows(tmp_path) -> None:
    run = load(tmp_path, model__adapter=BEGUN, hyperparameters=RATE, **FORGETS)
    try_out(run, QUIET)
    rows = class_of(run).constants["known_rows"]
    assert {name: len(each["tokens"]) for name, each in rows.items()} == {"forget": 4, "retain": 4}


def test_what_cannot_begin_apart_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"model\.adapter\.begin: fila needs trainable: causal_lm"):
        load(tmp_path, model__adapter=BEGUN, hyperparameters=RATE, price=0.0)
    with pytest.raises(InputError, match=r"hyperparameters\.rank: must be left out"):
        load(tmp_path, model__adapter=BEGUN, **{**FORGETS, "price": 0.01})
