"""Scores by exported models: losses, their difference, hidden states and gradients."""

import copy
import json

import numpy as np
import pytest
import torch

from shoal.cluster.storage import Store
from shoal.search.config.selection import DifferenceScore, EmbeddingScore, GradientScore, LossScore
from shoal.search.errors import InputError
from shoal.search.selection.interface import Scoring
from shoal.search.selection.language import check_readable, open_reader
from shoal.search.selection.scorers import open_scorer
from shoal.search.selection.select import select_corpus
from shoal.trainables.decoder import token_losses
from shoal.trainables.pretrained.settings import LowRank
from shoal.trainables.scoring import row_losses, row_sketches, row_states
from tests.search.corpus.test_scores import SHAPE, model, module
from tests.search.selection.test_select import places, run_of, write_group

__all__ = ["model", "module", "places"]  # fixtures
ROWS = np.random.default_rng(0).integers(0, 257, (6, 24)).astype(np.uint16)
IDS = np.arange(6)


def columns(settings, length: int = 24) -> dict[str, np.ndarray]:
    return open_scorer(Scoring(settings, "selection.scores.0", length))(ROWS, IDS)


def test_states_are_the_mean_of_what_the_last_norm_gives(module) -> None:
    seen = []
    hook = module.norm.register_forward_hook(lambda layer, given, result: seen.append(result))
    with torch.no_grad():
        module(torch.from_numpy(ROWS.astype(np.int64)))
    hook.remove()
    found = row_states(module, ROWS)
    assert found.shape == (6, SHAPE.width) and found == pytest.approx(seen[0].mean(dim=1).numpy(), abs=1e-5)
    # no hook is left behind
    assert not module.norm._forward_hooks


def test_sketches_keep_inner_products_of_gradients(module) -> None:
    slopes = []
    for row in ROWS:
        tokens = torch.from_numpy(row.astype(np.int64))[None]
        module.zero_grad()
        token_losses(module(tokens), tokens)[0].backward()
        slopes.append(torch.cat([weight.grad.reshape(-1) for weight in module.parameters()]).numpy())
    module.zero_grad()
    slopes = np.array(slopes)
    found = row_sketches(module, ROWS, 4096)
    assert np.array_equal(found, row_sketches(module, ROWS, 4096))
    exact, sketched = slopes @ slopes.T, found @ found.T
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    assert np.abs(sketched - exact).max() < 0.1 * scale.max()
    # the sketch is linear: with one place it is the signed sum of the gradient
    signs = 2 * torch.randint(2, (slopes.shape[1],), generator=_after_places(slopes.shape[1])).numpy() - 1
    assert row_sketches(module, ROWS, 1)[:, 0] == pytest.approx(slopes @ signs, rel=1e-3, abs=1e-3)


def _after_places(count: int) -> torch.Generator:
    draws = torch.Generator().manual_seed(count)
    torch.randint(1, (count,), generator=draws)
    return draws


def test_scorers_of_an_exported_model_give_these_columns(module, model) -> None:
    losses = row_losses(module, ROWS)
    assert columns(LossScore(kind="loss", model=model))["loss"] == pytest.approx(losses, abs=1e-5)
    assert columns(EmbeddingScore(kind="embedding", model=model))["embedding"] == pytest.approx(
        row_states(module, ROWS), abs=1e-5
    )
    found = columns(GradientScore(kind="gradients", model=model, width=64))["sketch"]
    assert found == pytest.approx(row_sketches(module, ROWS, 64), abs=1e-4)
    same = columns(DifferenceScore(kind="difference", model=model, base=model, column="gain"))
    assert same["gain"].tolist() == [0.0] * 6


def test_a_relative_difference_by_hand(module, model, tmp_path) -> None:
    # a model of zeros is as unsure as can be: its loss is log 257 for every token
    from safetensors.numpy import load, save

    store, zeros = Store(model), Store(str(tmp_path / "zeros"))
    weights = {name: np.zeros_like(value) for name, value in load(store.read("model.safetensors")).items()}
    zeros.write("model.safetensors", save(weights))
    zeros.write("config.json", store.read("config.json"))
    found = columns(DifferenceScore(kind="difference", model=zeros.uri, base=model))["score"]
    losses = row_losses(module, ROWS)
    assert found == pytest.approx((np.log(257) - losses) / losses, rel=1e-4)
    plain = DifferenceScore(kind="difference", model=zeros.uri, base=model, relative=False)
    assert columns(plain)["score"] == pytest.approx(np.log(257) - losses, abs=1e-4)


def test_a_corpus_is_chosen_by_losses_and_by_gradients(tmp_path, places, model) -> None:
    scores = [{"kind": "loss", "model": model}]
    selection = {"policy": {"kind": "top", "score": "loss", "largest": False}, "rows": 10, "scores": scores}
    chosen = select_corpus(run_of(tmp_path, places, selection), print)
    assert chosen.record["kept"] == 10
    selection = {
        "policy": {"kind": "tarot", "folds": 3, "depth": 5},
        "rows": 12,
        "scores": [{"kind": "gradients", "model": model, "width": 16}],
    }
    # gradients are taken row by row: a few rows are enough
    few = {name: write_group(tmp_path / f"few-{name}", "sea", 12, seed) for seed, name in enumerate(places)}
    selection["target"] = {"like": few["like"]}
    chosen = select_corpus(run_of(tmp_path / "few", few, selection), print)
    assert chosen.record["kept"] == 12 and set(chosen.record["kl"]) == {"like"}


def test_a_model_that_is_not_there_or_reads_other_tokens(tmp_path, places, model) -> None:
    selection = {
        "policy": {"kind": "top", "score": "loss"},
        "rows": 3,
        "scores": [{"kind": "loss", "model": "none"}],
    }
    with pytest.raises(InputError, match=r"selection.scores.0.model: must be the folder of an exported model"):
        select_corpus(run_of(tmp_path, places, selection), print)


def test_an_adapter_of_an_exported_decoder_scores_as_its_sum_with_the_base(tmp_path, module, model) -> None:
    from safetensors.numpy import save

    from shoal.trainables.pretrained import peft_files

    rng = np.random.default_rng(0)
    name = next(name for name, part in module.named_modules() if isinstance(part, torch.nn.Linear))
    height, width = module.get_submodule(name).weight.shape
    weights = {
        f"{name}.down": rng.normal(size=(2, width)).astype(np.float32),
        f"{name}.up": rng.normal(size=(height, 2)).astype(np.float32),
    }
    given = LowRank(rank=2, alpha=4.0, targets=(name.rpartition(".")[2],))
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / peft_files.WEIGHTS).write_bytes(save(peft_files.adapter_weights(weights, 2)))
    (folder / peft_files.CONFIG).write_text(json.dumps(peft_files.adapter_config(given, 2, model)))
    check_readable("key", str(folder), "bytes", 257, "AutoModelForCausalLM")
    changed = copy.deepcopy(module)
    with torch.no_grad():
        changed.get_submodule(name).weight += 2.0 * torch.from_numpy(
            weights[f"{name}.up"] @ weights[f"{name}.down"]
        )
    rows = rng.integers(0, 257, (4, 24)).astype(np.uint16)
    reader = open_reader("key", str(folder), "bytes", 24, "cpu")
    np.testing.assert_allclose(reader.judge(rows, row_losses), row_losses(changed, rows), atol=1e-5)
    assert not np.allclose(row_losses(changed, rows), row_losses(module, rows), atol=1e-3)
    with pytest.raises(InputError, match="key: must be a classifier of transformers"):
        check_readable("key", str(folder), "bytes", 257, "AutoModelForSequenceClassification")
    renamed = {name.replace(".down", ".x.down").replace(".up", ".x.up"): part for name, part in weights.items()}
    cut = {f"{name}.down": weights[f"{name}.down"][:, 1:], f"{name}.up": weights[f"{name}.up"]}
    for bad in (save(peft_files.adapter_weights(renamed, 2)), save(peft_files.adapter_weights(cut, 2)), b"{"):
        (folder / peft_files.WEIGHTS).write_bytes(bad)
        with pytest.raises(InputError, match=r"key: \S+ is no adapter of \S+: [^\n]+$"):
            open_reader("key", str(folder), "bytes", 24, "cpu")
