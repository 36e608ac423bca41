"""CHES by hand, and as a score of the rows of a selection."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

import yaml

from shoal.search.load import load_run
from shoal.search.selection.interface import Scoring
from shoal.search.selection.scorers import open_scorer
from shoal.search.selection.select import select_corpus
from shoal.trainables.pretrained.ches import ches, summed_states
from tests.helpers.pretrained import causal_run, tiny_model
from tests.search.selection.test_select import chosen_table


def test_the_score_of_two_answers_by_hand() -> None:
    better = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    worse = torch.tensor([[[1.0, 0.0], [2.0, 1.0], [9.0, 9.0]]])
    mask = torch.tensor([[0, 1, 1]])  # the first token is the prompt's, and the last place predicts nothing
    (one, first), (other, second) = (summed_states(each, mask) for each in (better, worse))
    assert one.tolist() == [[1.0, 1.0]] and other.tolist() == [[3.0, 1.0]] and first.item() == 2
    # <(1, 1), (3, 1)> - |(1, 1)|^2 = 4 - 2; by lengths 4 / 4 - 2 / 4
    assert ches(one, other).item() == 2.0
    assert ches(one, other, (first, second)).item() == pytest.approx(0.5)
    assert ches(one, one).item() == 0.0


def test_pairs_are_chosen_by_what_they_displace(tmp_path) -> None:
    lines = [
        {"prompt": f"{n}?", "chosen": "yes" * (1 + n % 3), "rejected": "no" * (1 + n % 4)} for n in range(60)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    values = causal_run(str(tmp_path), groups={"pairs": f"{tmp_path}/pairs.jsonl"}, trainable="preference")
    values["data"] |= {"format": "preference", "validation": 0.2, "test": 0.2}
    values["selection"] = {
        "policy": {"kind": "top", "score": "ches", "largest": False},
        "scores": [{"kind": "ches", "model": tiny_model()}],
        "share": 0.5,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    chosen = select_corpus(load_run(str(tmp_path / "run.yaml")), lambda said: None)
    table = chosen_table(chosen)
    assert 0 < len(table) <= 20 and np.isfinite(table["score_ches"].to_numpy()).all()


def test_a_score_of_rows_does_not_see_what_stands_behind_an_answer() -> None:
    settings = load_settings()
    score = open_scorer(Scoring(settings, "selection.scores.0", 8, tokenizer=tiny_model()))
    rows = np.zeros(
        2,
        [(name, "<u2", 8) for name in ("chosen", "rejected")]
        + [(f"{name}_mask", "u1", 8) for name in ("chosen", "rejected")],
    )
    draws = np.random.default_rng(0)
    for name in ("chosen", "rejected"):
        rows[name] = draws.integers(0, 200, 8)
        rows[f"{name}_mask"] = [0, 0, 1, 1, 1, 0, 0, 0]
    rows["chosen"][1, 5:] = 7
    found = score(rows, np.arange(2))["ches"]
    assert found.shape == (2,) and found[0] == pytest.approx(found[1], abs=1e-4) and found[0] != 0


def load_settings():
    from shoal.search.config.selection import ChesScore

    return ChesScore(kind="ches", model=tiny_model())
