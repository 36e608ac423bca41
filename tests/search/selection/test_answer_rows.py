"""Rows of instructions and of pairs are chosen by n-grams, near duplicates, gradients and influence."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from shoal.cluster.storage import Store
from shoal.policies.selection.ngrams import token_buckets
from shoal.search.config.selection import NgramScore
from shoal.search.errors import InputError
from shoal.search.load import checked_run
from shoal.search.selection.duplicates import shingles
from shoal.search.selection.interface import Scoring, counted_texts, tokens_of
from shoal.search.selection.scorers import bucket_counts, open_scorer
from shoal.search.selection.select import select_corpus
from shoal.search.selection.shown import readable_text
from shoal.trainables.decoder import Decoder, initialise
from shoal.trainables.influence.ekfac import fit_factors, influences, mean_query
from shoal.trainables.influence.likelihoods import NextTokens
from shoal.trainables.influence.traces import traced_layers
from shoal.trainables.scoring import on_device, row_sketches
from shoal.trainables.settings import DecoderShape
from tests.search.selection.test_class_models import records
from tests.search.selection.test_select import WORDS
from tests.trainables.test_instructions import rows as instruction_rows
from tests.trainables.test_instructions import trained

NGRAMS = NgramScore(kind="ngrams", grams=2, buckets=500)
CPU = torch.device("cpu")


def pairs() -> np.ndarray:
    """Return one pair: the prompt 7 8, the answers 9 and 5, each with an end of 0, and padding."""
    names = ("chosen", "chosen_mask", "rejected", "rejected_mask")
    found = np.zeros(1, [(name, "u1" if "mask" in name else "<u2", (6,)) for name in names])
    found["chosen"], found["chosen_mask"] = [7, 8, 9, 0, 0, 0], [0, 0, 1, 1, 0, 0]
    found["rejected"], found["rejected_mask"] = [7, 8, 5, 0, 0, 0], [0, 0, 1, 1, 0, 0]
    return found


def test_which_tokens_are_read_by_hand() -> None:
    tokens, segment = counted_texts(pairs(), "s")
    assert tokens[0].tolist() == [7, 8, 9, 0, 0, 0] and segment[0].tolist() == [1, 1, 1, 1, 0, 0]
    given = records(instruction_rows(2))
    assert counted_texts(given, "s")[1][0].tolist() == given["segment"][0].tolist()
    with pytest.raises(InputError, match=r"s: looks at one answer, but these rows are pairs"):
        tokens_of(pairs(), "s", answers=True)
    with pytest.raises(InputError, match=r"rows of plain tokens, but these have x"):
        counted_texts(np.zeros(1, [("x", "f4")]), "s")


def test_ngrams_over_a_border_or_in_padding_count_nothing_by_hand() -> None:
    given = records(instruction_rows(3))
    alone = [token_buckets(given["tokens"][:, part], 2, 500) for part in (slice(0, 5), slice(5, 9))]
    counts = sum(np.bincount(each.ravel(), minlength=500) for each in alone)
    assert np.array_equal(bucket_counts(given, NGRAMS, "s"), counts)
    ratios = np.random.default_rng(0).normal(size=(1, 500))
    found = open_scorer(Scoring(NGRAMS, "s", 12, fitted=ratios))(given, np.arange(3))
    assert found["length"].tolist() == [9, 9, 9]
    assert found["log_ratio"] == pytest.approx(sum(ratios[0][each].sum(axis=1) for each in alone))


def test_shingles_lie_within_one_text_and_a_short_text_is_one() -> None:
    rows = np.array([[1, 2, 3, 1, 2, 0], [1, 2, 9, 9, 9, 9]], np.uint16)
    segment = np.array([[1, 1, 1, 2, 2, 0], [1, 1, 0, 0, 0, 0]], np.uint16)
    first, short = shingles(rows, 3, segment)
    assert first.tolist() == shingles(rows[:1], 3)[0][:1].tolist() and len(short) == 1
    # what fills a row does not count
    other = np.array([[1, 2, 3, 1, 2, 7], [1, 2, 0, 0, 0, 0]], np.uint16)
    assert [each.tolist() for each in shingles(other, 3, segment)] == [first.tolist(), short.tolist()]


def test_rows_are_shown_as_texts_by_hand() -> None:
    words = SimpleNamespace(decode=lambda ids: " ".join(map(str, ids.tolist())))
    row = records(instruction_rows(1))[0]
    row["tokens"][:9] = range(9)
    assert readable_text(row, words) == "0 1 2 3 4\n\n5 6 7 8"
    assert readable_text(pairs()[0], words) == "better: 7 8 9 0\n\nworse: 7 8 5 0"


class TestGradients:
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rows of one example of which all counts, and the same as plain tokens."""
        given = instruction_rows(4)
        given["segment"][:], given["mask"][:] = 1, 1
        return records(given), given["tokens"]

    def test_where_all_counts_they_are_those_of_plain_rows(self) -> None:
        module, (answers, plain) = trained().module, self.rows()
        found = row_sketches(module, answers, 32)
        np.testing.assert_allclose(found, row_sketches(module, plain, 32), rtol=1e-3, atol=1e-4)
        likelihood = NextTokens(module)
        found, expected = on_device(answers, CPU), torch.from_numpy(plain.astype(np.int64))
        both = likelihood.losses(found), likelihood.losses(expected)
        torch.testing.assert_close(*both, rtol=1e-4, atol=1e-4)

    def test_padding_and_what_is_given_count_nothing_of_their_own(self) -> None:
        module, given = trained().module, records(instruction_rows(3))
        found = row_sketches(module, given, 32)
        filled = given.copy()
        filled["tokens"][filled["segment"] == 0] = 3
        np.testing.assert_allclose(row_sketches(module, filled, 32), found, atol=1e-6)
        filled["mask"] = 0
        assert not row_sketches(module, filled, 32).any()
        assert found.any() and all(weight.grad is None for weight in module.parameters())

    def test_a_row_of_answers_has_the_largest_influence_on_itself(self) -> None:
        module, given = trained().module, records(instruction_rows(12))
        likelihood, layers = NextTokens(module), traced_layers(module)
        batch = on_device(given, CPU)
        factors = fit_factors(likelihood, layers, [batch], torch.Generator().manual_seed(0))
        query = mean_query(likelihood, layers, factors, [on_device(given[3:4], CPU)])
        assert int(influences(likelihood, layers, query, batch)[:, 0].argmax()) == 3


def examples(folder: Path, kind: str, count: int, seed: int, pair: bool) -> str:
    rng = np.random.default_rng(seed)
    folder.mkdir()
    lines = []
    for number in range(count):
        given, answer, other = (" ".join(rng.choice(WORDS[kind], 12).tolist()) for _ in range(3))
        lines.append({"q": f"{given} {number}", "a": answer, "b": other})
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return str(folder)


def pair_settings(folder: Path) -> dict[str, Any]:
    """Return the settings of a run that trains an exported decoder on pairs; the decoder goes to a folder."""
    shape = {"vocabulary": 257, "sequence_length": 256, "layers": 1, "heads": 1, "width": 8}
    made = Decoder(DecoderShape(**shape))
    initialise(made, torch.Generator().manual_seed(0))
    folder.mkdir()
    save_file({name: each.numpy() for name, each in made.state_dict().items()}, folder / "model.safetensors")
    config = {"format": 2, "trainable": "decoder", "shape": shape, "tokenizer": "bytes", "run": "x", "step": 5}
    (folder / "config.json").write_text(json.dumps(config))
    return {"trainable": "preference", "model": {"path": str(folder), "adapter": None}}


@pytest.mark.parametrize("pair", [False, True], ids=["instruction", "preference"])
def test_examples_like_the_target_are_chosen(tmp_path, pair: bool) -> None:
    groups = {name: examples(tmp_path / name, name, 60, seed, pair) for seed, name in enumerate(WORDS)}
    answers = {"chosen": "a", "rejected": "b"} if pair else {"answer": "a"}
    shape: dict[str, Any] = {"kind": "preference" if pair else "instruction", "prompt": "q", **answers}
    values = {
        "name": "chosen",
        **(pair_settings(tmp_path / "best") if pair else {"trainable": "decoder"}),
        "directory": str(tmp_path / "run"),
        "data": {"corpus": str(tmp_path / "corpus"), "groups": groups, "format": shape, "sequence_length": 256},
        "selection": {
            "policy": {"kind": "dsir"},
            "share": 0.3,
            "target": {"like": examples(tmp_path / "like", "sea", 60, 9, pair)},
            "duplicates": {"similarity": 0.8},
        },
        "hyperparameters": {"learning_rate": {"kind": "float", "low": 0.001, "high": 0.01}},
    }
    pytest.importorskip("datasketch")
    chosen = select_corpus(checked_run(values, "run.yaml"), lambda line: None)
    groups_found = chosen.record["groups"]
    assert groups_found["sea"]["kept"] > 0.9 * chosen.record["kept"] > 0
    assert chosen.record["kl"]["like"]["after"] < chosen.record["kl"]["like"]["before"]
    assert Store(chosen.data.corpus).exists(chosen.folder)


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        ({"scores": [{"kind": "heads", "model": "best"}]}, "selection.scores.0: heads does not read data.rows"),
        (
            {"policy": "dsir", "target": {"want": "w"}},
            "selection.policy: ngrams does not read data.rows: columns",
        ),
        ({"duplicates": {}}, "selection.duplicates: compares tokens, of which rows of columns have none"),
    ],
)
def test_what_does_not_read_rows_is_named_with_what_does(selection: dict[str, Any], wanted: str) -> None:
    values = {
        "name": "chosen",
        "trainable": "classifier",
        "data": {
            "groups": {"one": "one"},
            "columns": {"x": "number", "y": {"kind": "class", "names": ["a", "b"]}},
        },
        "selection": {"policy": "top", "rows": 3, **selection},
        "hyperparameters": {"learning_rate": {"kind": "float", "low": 0.001, "high": 0.01}},
    }
    with pytest.raises(InputError, match=wanted):
        checked_run(values, "run.yaml")
