"""Exports of causal models that were trained on hidden tokens: they look both ways, and readers heed it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from transformers import AutoModelForCausalLM

from shoal.cluster.storage import Store
from shoal.search.distill.card import card_of
from shoal.search.errors import InputError
from shoal.search.hidden_tokens import looks_both_ways
from shoal.search.members.classes import class_of
from shoal.search.records.pretrained import export_pretrained
from shoal.search.selection.language import check_readable
from shoal.trainables.batches import Shuffled
from shoal.trainables.pretrained.rows import Seen, asked
from shoal.trainables.settings import Recipe
from shoal.trainables.text_tower import FolderTower
from tests.helpers.pretrained import tiny_model, token_rows
from tests.search.members.test_causal_runs import load, tried

MASKED = [{"kind": "masked"}]
RATE = {"learning_rate": {"kind": "float", "low": 0.001, "high": 0.03, "log": True}}
WHOLE = {"model": {"path": tiny_model()}, "hyperparameters": RATE}
TOKENS = torch.from_numpy(token_rows(2).astype(np.int64))
KINDS = pytest.mark.parametrize("whole", [True, False], ids=["whole", "adapter"])


def exported(tmp_path: Path, whole: bool) -> tuple[Any, str]:
    """Train a member of a run on hidden tokens, and export it; return it and its folder."""
    run = load(tmp_path, objective=MASKED, **(WHOLE if whole else {}))
    made = class_of(run)
    member = made(Recipe(steps=20, learning_rate=0.01), {}, Shuffled(token_rows(), 4), {}, 0, "cpu")
    member.train(5)
    told = {"trainable": "causal_lm", "step": 5, **run.model_dump(include={"objective"})}
    target = Store(str(tmp_path / "out"))
    export_pretrained(run, member.state()["weights"], told, target, merge=False)
    return member, target.uri


def test_a_whole_model_looks_both_ways_in_transformers_too(tmp_path) -> None:
    member, folder = exported(tmp_path, True)
    assert json.loads(Path(folder, "config.json").read_text())["is_causal"] is False
    loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        ours = member.module.eval()(**asked(Seen(TOKENS, TOKENS, TOKENS))).logits
        assert torch.allclose(loaded(input_ids=TOKENS).logits, ours, atol=1e-5)


@KINDS
def test_what_reads_from_left_to_right_refuses_it(tmp_path, whole: bool) -> None:
    _, folder = exported(tmp_path, whole)
    assert looks_both_ways(folder) and not looks_both_ways(tiny_model())
    said = "must be a model that finds the next token"
    for kind in ("AutoModelForCausalLM", "AutoModel"):
        with pytest.raises(InputError, match=rf"^selection\.scores\.0\.model: {said}"):
            check_readable("selection.scores.0.model", folder, tiny_model(), 257, kind)
    with pytest.raises(InputError, match=rf"^mixing\.reference: {said}"):
        load(tmp_path, mixing={"policy": "doremi", "reference": folder})
    with pytest.raises(InputError, match=rf"model\.{'path' if whole else 'begin'}: {said}"):
        load(tmp_path, model={"begin": folder}, hyperparameters=RATE)
    if whole:
        with pytest.raises(InputError, match=rf"^distill\.teacher: {said}"):
            card_of(folder, "distill.teacher")


@KINDS
def test_another_run_on_hidden_tokens_goes_on_with_it(tmp_path, whole: bool) -> None:
    _, folder = exported(tmp_path, whole)
    said = tried(load(tmp_path, model={"begin": folder}, hyperparameters=RATE, objective=MASKED))
    assert "it trains on as its donor does" in said


def test_it_serves_as_an_encoder_that_reads_both_sides(tmp_path) -> None:
    _, folder = exported(tmp_path, True)
    tower, found = FolderTower(folder).eval(), []
    tower.encoder.register_forward_hook(lambda *given: found.append(given[-1].last_hidden_state))
    later, padded = TOKENS.clone(), TOKENS.clone()
    later[:, -1], padded[:, -1] = (TOKENS[:, -1] + 1) % 64, -1
    with torch.no_grad():
        for tokens in (TOKENS, later, padded, TOKENS[:, :-1]):
            tower(tokens, 0.0, 0.0)
    assert not torch.allclose(found[0][:, 0], found[1][:, 0], atol=1e-4)
    assert torch.allclose(found[2][:, :-1], found[3], atol=1e-5)
