"""Pairs of answers for a decoder that a run of ours has exported, whole or as adapters."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.numpy import load_file, save_file

from shoal.cluster.storage import Store
from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.records.pretrained import export_pretrained
from shoal.search.runs.dry import try_out
from shoal.search.selection.language import CAUSAL, CLASSES, check_readable, digest_of_weights, open_reader
from shoal.trainables.batches import Shuffled
from shoal.trainables.decoder import Decoder, initialise, trained_decoder
from shoal.trainables.objectives.kinds import OBJECTIVES
from shoal.trainables.objectives.weighted import weighted_sum
from shoal.trainables.pretrained.ches import pair_scores
from shoal.trainables.pretrained.folder import loaded_model
from shoal.trainables.pretrained.preference import PreferenceModel
from shoal.trainables.pretrained.settings import LowRank, Pretrained
from shoal.trainables.scoring import row_losses
from shoal.trainables.settings import DecoderShape, Recipe
from shoal.trainables.stack import Stack
from tests.helpers.pretrained import instruction_rows, token_rows
from tests.trainables.pretrained.test_preference import pairs

SHAPE = {"vocabulary": 257, "sequence_length": 16, "layers": 2, "heads": 2, "width": 16}
GATED = {**SHAPE, "experts": 3, "gate": "tanh", "active_experts": 2}
TARGETS = ("project", "output", "rise", "fall")
ADAPTER = LowRank(rank=4, alpha=8.0, targets=TARGETS)
FILE = """\
name: pairs
trainable: preference
model: {path: best, adapter: {kind: lora, rank: 4, alpha: 8, targets: [project, rise]}}
data:
  corpus: corpus
  groups: {pairs: pairs.jsonl}
  format: {kind: preference, prompt: question, chosen: better, rejected: worse}
  sequence_length: 32
  validation: 0.2
  test: 0.2
training: {steps: 8, batch: 4, warmup: 2, evaluation_rows: 4}
hyperparameters: {learning_rate: {kind: float, low: 0.001, high: 0.1, log: true}}
population: {members: 2, interval: 4, exploit: none}
cluster: {broods: 1}
"""


@pytest.fixture(params=[SHAPE, GATED], ids=["one expert", "experts"])
def best(tmp_path, monkeypatch, request) -> str:
    """Return the folder of an exported decoder, in the working folder."""
    monkeypatch.chdir(tmp_path)
    made = Decoder(DecoderShape(**request.param))
    initialise(made, torch.Generator().manual_seed(1))
    Path("best").mkdir()
    save_file({name: each.numpy() for name, each in made.state_dict().items()}, "best/model.safetensors")
    config = {
        "format": 2,
        "trainable": "decoder",
        "shape": request.param,
        "tokenizer": "bytes",
        "run": "x",
        "step": 5,
    }
    Path("best/config.json").write_text(json.dumps(config))
    Path("run.yaml").write_text(FILE)
    rows = ({"question": f"{number}", "better": "a" * 5, "worse": "b" * 5} for number in range(60))
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(Path("best").absolute())


def preferring(folder: str, adapter: LowRank | None, seed: int = 0, **hyperparameters: Any) -> PreferenceModel:
    held_out = {split: {"one": pairs(3)} for split in ("validation", "test")}
    return PreferenceModel(
        Recipe(steps=60, warmup=2, learning_rate=0.02),
        hyperparameters,
        Shuffled(pairs(1), 4, seed),
        held_out,
        seed,
        pretrained=Pretrained(folder, adapter),
        losses=weighted_sum([("dpo", OBJECTIVES["dpo"]())]),
    )


def test_it_reads_rows_as_the_decoder_does_also_longer_and_packed_ones(best: str) -> None:
    ours = loaded_model(best, torch.float32)
    shape = DecoderShape(**json.loads(Path("best/config.json").read_text())["shape"])
    plain = trained_decoder(shape, load_file(f"{best}/model.safetensors"), 24)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 257, (3, 24)))
    segment = torch.tensor([[1] * 10 + [2] * 14] * 3)
    places = torch.tensor([[*range(10), *range(14)]] * 3)
    before = torch.ones(24, 24, dtype=torch.bool).tril()
    seen = (segment[:, None, :, None] == segment[:, None, None, :]) & before
    with torch.no_grad():
        assert torch.allclose(ours(input_ids=tokens).logits, plain(tokens), atol=1e-6)
        packed = ours(input_ids=tokens, attention_mask=seen, position_ids=places).logits
        assert torch.allclose(packed, plain(tokens, 0.0, segment), atol=1e-6)


@pytest.mark.parametrize("adapter", [ADAPTER, None], ids=["adapter", "whole"])
def test_pairs_are_learnt_from_where_the_decoder_was(best: str, adapter: LowRank | None) -> None:
    member = preferring(best, adapter)
    assert member.evaluate()[0] == 0.5 and member.measure()["displacement_one"] == 0.0
    member.train(60)
    assert member.evaluate()[0] > 0.6


def test_adapters_of_a_decoder_train_as_a_stack(best: str) -> None:
    def made(place: int) -> PreferenceModel:
        return preferring(best, ADAPTER, place, objective={"beta": 0.05 * (place + 1)})

    stack = Stack([made(place) for place in range(3)])
    for place, loss in enumerate(stack.train(4)):
        assert made(place).train(4) == pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize("adapter", [ADAPTER, None], ids=["adapter", "whole"])
def test_an_export_is_a_decoder_again(best: str, adapter: LowRank | None, tmp_path) -> None:
    member = preferring(best, adapter)
    member.train(5)
    named = "adapter: {kind: lora, rank: 4, alpha: 8, targets: [project, output, rise, fall]}"
    run = load_run("run.yaml", ["model={path: best" + (f", {named}" if adapter else "") + "}"])
    told = {"trainable": "preference", "run": "pairs", "step": 5, "tokenizer": "bytes", "shape": {}}
    export_pretrained(run, member.state()["weights"], told, Store(str(tmp_path / "out")), merge=bool(adapter))
    config = json.loads(Path("out/config.json").read_text())
    shape = json.loads(Path("best/config.json").read_text())["shape"]
    assert config["trainable"] == "decoder" and config["shape"] == shape and config["step"] == 5
    again = loaded_model("out", torch.float32)
    tokens = torch.from_numpy(pairs(3)["chosen"].astype(np.int64))
    member.module.eval()
    with torch.no_grad():
        assert torch.allclose(again(input_ids=tokens).logits, member.module(input_ids=tokens).logits, atol=1e-5)


def test_adapters_that_learnt_pairs_score_rows_as_the_merged_model_does(best: str, tmp_path) -> None:
    member = preferring(best, ADAPTER)
    member.train(5)
    named = "adapter: {kind: lora, rank: 4, alpha: 8, targets: [project, output, rise, fall]}"
    run = load_run("run.yaml", ["model={path: best, " + named + "}"])
    told = {"trainable": "preference", "run": "pairs", "step": 5, "tokenizer": "bytes", "shape": {}}
    for merge, name in ((False, "adapter"), (True, "merged")):
        store = Store(str(tmp_path / name))
        export_pretrained(run, member.state()["weights"], told, store, merge=merge)
        check_readable("key", name, "bytes", 257, CAUSAL)
    adapter, merged, base = (
        open_reader("key", each, "bytes", 16, "cpu") for each in ("adapter", "merged", best)
    )
    for rows in (token_rows(6), trained_rows(6)):
        found = adapter.judge(rows, row_losses)
        np.testing.assert_allclose(found, merged.judge(rows, row_losses), atol=1e-5)
        assert not np.allclose(found, base.judge(rows, row_losses), atol=1e-4)
    scores = [pair_scores(each.module, pairs(3), False) for each in (adapter, merged, base)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4, atol=1e-4)
    assert not np.allclose(scores[0], scores[2], rtol=1e-3)
    assert len({digest_of_weights("key", each) for each in ("adapter", "merged", best)}) == 3
    with pytest.raises(InputError, match="must be a classifier of transformers"):
        check_readable("key", "adapter", "bytes", 257, CLASSES)


def trained_rows(rows: int) -> np.ndarray:
    """Return instruction rows as a corpus stores them."""
    given = instruction_rows(rows)
    found = np.zeros(rows, [(name, each.dtype, each.shape[1:]) for name, each in given.items()])
    for name, each in given.items():
        found[name] = each
    return found


def test_a_run_takes_the_tokenizer_of_the_decoder(best: str) -> None:
    run = load_run("run.yaml")
    assert run.data.tokenizer == "bytes"
    said = io.StringIO()
    try_out(run, Console(file=said, width=200))
    assert "validation" in said.getvalue()


def refused(*changes: str) -> str:
    with pytest.raises(InputError) as raised:
        load_run("run.yaml", changes)
    assert "\n" not in str(raised.value)
    return str(raised.value).removeprefix("run.yaml: ")


def test_what_cannot_be_is_refused(best: str) -> None:
    found = refused("model={path: best, adapter: lora}")
    assert "no linear layer is called q_proj" in found and "?." not in found
    assert refused("model={path: best, fresh: ['*']}").startswith("model.fresh: must be left out")
    plain = ["trainable=causal_lm", "data.format={kind: instruction, prompt: question, answer: better}"]
    assert "which trainable: decoder goes on with (begin.run)" in refused(*plain)
    config = json.loads(Path("best/config.json").read_text())
    Path("best/config.json").write_text(json.dumps(config | {"objective": [{"kind": "masked", "share": 0.15}]}))
    assert "was trained on hidden ones" in refused()
