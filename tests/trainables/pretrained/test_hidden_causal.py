"""Hidden tokens for models of transformers: places look both ways within an example, as in our decoder."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

import transformers
from torch.nn import functional

from shoal.trainables.arrays import map_nest, to_tensors
from shoal.trainables.batches import Shuffled
from shoal.trainables.decoder import Decoder, initialise
from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.hiding import with_hidden
from shoal.trainables.objectives.masked import MaskedTokens
from shoal.trainables.objectives.weighted import weighted_sum
from shoal.trainables.pretrained.both_ways import hidden_rows, look_both_ways, within_examples
from shoal.trainables.pretrained.causal import CausalModel
from shoal.trainables.pretrained.low_rank import adapters
from shoal.trainables.pretrained.rows import Seen, asked
from shoal.trainables.pretrained.settings import LowRank, Pretrained
from shoal.trainables.settings import DecoderShape, Recipe
from shoal.trainables.stack import Stack, stackable
from tests.helpers.members import equal
from tests.helpers.pretrained import ADAPTER, LENGTH, VOCABULARY, instruction_rows, tiny_llama, token_rows
from tests.trainables.test_hidden_tokens import patterned

CPU = torch.device("cpu")
SIZES = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
FED = {"intermediate_size": 32}
GROUPED = {**SIZES, **FED, "num_key_value_heads": 2}
WIDE = LowRank(rank=8, alpha=16.0, targets=("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"))
SHARES = {"objective.masked.share": 0.15}


def member(
    seed: int = 0,
    adapter: LowRank | None = ADAPTER,
    rows: Any = None,
    recipe: dict[str, Any] | None = None,
    path: str = "",
    **hyperparameters: Any,
) -> CausalModel:
    held_out = {
        split: {"one": patterned(16, 1), "two": instruction_rows(6, 2)} for split in ("validation", "test")
    }
    return CausalModel(
        Recipe(**{"steps": 300, "warmup": 5, "learning_rate": 0.01, **(recipe or {})}),
        hyperparameters,
        Shuffled(patterned() if rows is None else rows, 16, 3),
        held_out,
        seed,
        pretrained=Pretrained(path or tiny_llama(), adapter),
        losses=weighted_sum([("masked", MaskedTokens())]),
    )


def family(name: str, drawn: bool = True, **sizes: Any) -> Any:
    """Return a small model of a family, whose weights are `drawn` large enough to attend."""
    config = getattr(transformers, f"{name}Config")(**sizes)
    torch.manual_seed(0)
    made = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in made.parameters():
            if drawn and weight.dim() == 2:
                weight.normal_(0.0, weight.shape[1] ** -0.5)
    return made


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("Llama", GROUPED),
        ("Qwen2", GROUPED),
        ("Qwen3", {**GROUPED, "head_dim": 4}),
        ("Mistral", {**GROUPED, "sliding_window": 8}),
        ("Gemma3Text", {**GROUPED, "head_dim": 4, "pad_token_id": 0}),
        ("GPTNeoX", {**SIZES, **FED}),
        ("OPT", {**SIZES, "ffn_dim": 32, "word_embed_proj_dim": 16}),
        ("GPT2", {"vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    ],
)
def test_places_look_both_ways_and_no_example_sees_another(name: str, sizes: dict[str, Any]) -> None:
    module = family(name, **sizes)
    tokens = torch.from_numpy(token_rows(2).astype(np.int64))[:, :8]
    segment = torch.tensor([[1, 1, 1, 2, 2, 2, 0, 0]] * 2)

    def logits(tokens: torch.Tensor, segment: torch.Tensor | None = None) -> torch.Tensor:
        rows = Seen(tokens, tokens, tokens)
        with torch.no_grad():
            return module(**asked(rows if segment is None else within_examples(rows, segment))).logits

    def changed(place: int, segment: torch.Tensor | None = None) -> list[bool]:
        other = tokens.clone()
        other[:, place] = (other[:, place] + 1) % 64
        apart = (logits(other, segment) - logits(tokens, segment)).abs().amax(dim=(0, 2))
        return (apart > 1e-6).tolist()

    assert changed(5) == [False] * 5 + [True] * 3  # as it is, it looks back alone
    look_both_ways(module)
    assert changed(7) == [True] * 8
    assert changed(5, segment) == [False] * 3 + [True] * 3 + [False] * 2
    assert changed(7, segment) == [False] * 6 + [True] * 2
    # an example of a row is read as it is alone
    assert torch.allclose(logits(tokens, segment)[:, 3:6], logits(tokens[:, 3:6]), atol=1e-5)
    blank = torch.where(torch.arange(8) == 4, -1, tokens)
    assert not torch.allclose(logits(blank)[:, 0], logits(tokens)[:, 0])


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("RecurrentGemma", {**SIZES, **FED, "num_hidden_layers": 3, "lru_width": 16, "pad_token_id": 0}),
        ("Mamba", {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1}),
    ],
)
@pytest.mark.parametrize("drawn", [True, False], ids=["drawn", "begun"])
def test_a_family_that_cannot_is_refused_in_one_line(name: str, sizes: dict[str, Any], drawn: bool) -> None:
    with pytest.raises(ValueError, match=f"objective masked needs .* {name}ForCausalLM does not") as raised:
        look_both_ways(family(name, drawn, **sizes))
    assert "\n" not in str(raised.value)


class TestLoss:
    def test_by_hand_where_no_layer_adds_anything(self) -> None:
        """A token without a vector has logits of 0 and a loss of ln 64; one in sight that of its own vector."""
        made = member(adapter=None)
        with torch.no_grad():
            for name, weight in made.module.named_parameters():
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    weight.zero_()
        rows = torch.from_numpy(token_rows(40).astype(np.int64))
        made.module.eval()
        hidden = with_hidden(rows, VOCABULARY, False, SHARES)
        table = made.module.get_input_embeddings().weight
        vectors = functional.rms_norm(table[hidden.read], (16,), eps=made.module.config.rms_norm_eps)
        seen = functional.cross_entropy((vectors @ table.T).flatten(0, 1), rows.flatten(), reduction="none")
        each = torch.where(hidden.blank, math.log(VOCABULARY), seen.view(rows.shape))
        assert hidden.blank.any() and (hidden.found & ~hidden.blank).any()
        with torch.no_grad():
            found = made.loss(made.module, rows, made.sober)
            parts = made.parts(made.module, rows)
        # 0.15 of 12 tokens are 2
        assert torch.allclose(found, (each * hidden.found).sum(dim=1) / 2, atol=1e-5)
        assert torch.allclose(parts.nanmean(dim=1), found, atol=1e-5)
        assert torch.equal(~parts.isnan(), hidden.found)

    @pytest.mark.parametrize("rows", [token_rows(8), instruction_rows(8)], ids=["tokens", "instructions"])
    def test_the_same_tokens_are_hidden_as_the_decoder_hides(self, rows: Any) -> None:
        """One network of both kinds: a Llama and the decoder, whose layers add nothing, read the same rows."""
        batch = to_tensors(rows, CPU)
        hidden, read = (
            with_hidden(batch, VOCABULARY, False, SHARES),
            hidden_rows(batch, VOCABULARY, False, SHARES),
        )
        assert torch.equal(read.counted > 0, hidden.found) and torch.equal(read.targets, hidden.tokens)
        decoder = Decoder(DecoderShape(VOCABULARY, LENGTH, layers=1, heads=2, width=16))
        initialise(decoder, torch.Generator().manual_seed(0))
        with torch.no_grad():
            decoder.embedding.weight.copy_(torch.randn(VOCABULARY, 16))
            decoder.blocks[0].attention.output.weight.zero_()
            decoder.blocks[0].fall.weight.zero_()
            ours = decoder(hidden.read, segment=hidden.segment, hidden=hidden.blank)
            made = member(adapter=None).module
            for name, weight in made.named_parameters():
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    weight.zero_()
            made.get_input_embeddings().weight.copy_(decoder.embedding.weight)
            theirs = made.eval()(**asked(read)).logits
        assert torch.allclose(ours, theirs, atol=1e-4)

    def test_only_answers_are_hidden(self) -> None:
        made, rows = member(), to_tensors(instruction_rows(6), CPU)
        made.module.eval()
        with torch.no_grad():
            there = ~made.parts(made.module, rows).isnan()
        assert not there[rows["mask"] == 0].any() and (there.sum(dim=1) == 1).all()

    def test_what_is_padded_changes_nothing(self) -> None:
        rows = instruction_rows(6)
        rows["segment"] = np.where(rows["segment"] == 1, rows["segment"], 0)
        shorter = {name: each[:, :5] for name, each in rows.items()}
        made = member()
        made.module.eval()
        read = [hidden_rows(to_tensors(each, CPU), VOCABULARY, False, SHARES) for each in (rows, shorter)]
        same = read[0]._replace(tokens=torch.cat([read[1].tokens, read[0].tokens[:, 5:]], dim=1))
        with torch.no_grad():
            long, short = (made.module(**asked(each)).logits for each in (same, read[1]))
        assert torch.allclose(long[:, :5], short, atol=1e-5)


class TestMembers:
    @pytest.mark.parametrize("adapter", [None, WIDE], ids=["whole", "adapter"])
    def test_what_follows_from_both_sides_is_learnt(self, adapter: LowRank | None) -> None:
        made = member(adapter=adapter)
        made.train(150)
        # guessing comes to ln 64, and an untrained model to more than that
        assert made.evaluate()[1]["one"] < 0.85 * math.log(VOCABULARY)

    def test_the_score_hides_the_same_tokens_each_time_whatever_is_searched(self) -> None:
        made = member()
        made.train(3)
        found = made.evaluate()
        assert made.evaluate() == found
        made.adopt({"objective": {"share": 0.6}, "label_smoothing": 0.2, "z_loss": 0.1, "dropout": 0.3})
        assert made.evaluate() == found

    def test_the_shared_base_still_looks_back_alone(self) -> None:
        made = member()
        assert made.module.config.is_causal is False
        assert getattr(made.template.config, "is_causal", True)
        assert not made.template.get_input_embeddings()._forward_hooks

    @pytest.mark.parametrize("recomputed", [False, True], ids=["kept", "recomputed"])
    def test_a_copy_goes_on_as_its_donor_and_so_do_layers_computed_again(self, recomputed: bool) -> None:
        recipe = {"gradient_checkpointing": recomputed}
        donor, receiver = member(1), member(2, recipe=recipe)
        donor.train(3)
        hand_in(receiver.load, handed_out(donor.state), {"objective": {"share": 0.3}})
        donor.adopt({"objective": {"share": 0.3}})
        assert donor.train(2) == pytest.approx(receiver.train(2), abs=1e-6)
        assert recomputed or equal(handed_out(donor.state), handed_out(receiver.state))


class TestStacks:
    @pytest.mark.parametrize("kind", ["tokens", "instructions"])
    def test_losses_and_gradients_are_those_of_members_alone(self, kind: str) -> None:
        rows = [token_rows(16, each) if kind == "tokens" else instruction_rows(16, each) for each in range(3)]
        members = [member(place, rows=rows[0], objective={"share": 0.2 * (place + 1)}) for place in range(3)]
        for each in members:
            each.train(2)
        batches = [to_tensors(each, CPU) for each in rows]
        alone = []
        for each, batch in zip(members, batches, strict=True):
            torch.manual_seed(5)
            loss = each.loss(each.module.train(), batch, each.numbers).mean()
            slopes = torch.autograd.grad(loss, list(each.weights().values()))
            alone.append((loss.item(), [slope.clone() for slope in slopes]))
        stack = Stack(members)
        first = members[0]
        first.module.train()
        told = {**first.numbers, "objective.masked.share": torch.tensor([0.2, 0.4, 0.6])}
        with first.together(stack.leaves) as together:
            torch.manual_seed(5)
            losses, _ = together(map_nest(lambda *each: torch.stack(each), *batches), told)
            slopes = torch.autograd.grad(losses.sum(), list(stack.leaves.values()))
        for place, (loss, known) in enumerate(alone):
            assert losses[place].item() == pytest.approx(loss, abs=1e-5)
            for slope, own in zip(slopes, known, strict=True):
                assert torch.allclose(slope[place], own, atol=1e-5)

    def test_members_with_other_shares_train_as_a_stack(self) -> None:
        members = [member(place, objective={"share": 0.1 * (place + 1)}) for place in range(3)]
        assert all(stackable(members[0], each) for each in members[1:])
        stack = Stack(members)
        first = stack.train(5)
        assert all(np.isfinite(first)) and np.mean(stack.train(60)) < np.mean(first)
        assert len({score for score, _ in stack.evaluate()}) == 3

    def test_a_member_of_hidden_tokens_shares_its_base_with_others(self) -> None:
        one, other = member(), member(1)
        assert one.template is other.template
        assert copy.deepcopy(one.module) is not one.module and len(dict(adapters(one.module))) > 0
