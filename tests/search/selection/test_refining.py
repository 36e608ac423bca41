"""Rounds of training and rewriting, with a trainer that stands in for a run: what is made and recorded."""

import json
from io import StringIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.numpy import save

from shoal.cluster.rows import as_rows
from shoal.cluster.storage import Store
from shoal.policies.selection.refine import Flagged
from shoal.search.corpus.build import prepare_corpus
from shoal.search.corpus.manifest import find_corpus
from shoal.search.errors import InputError
from shoal.search.load import checked_run
from shoal.search.runs import refine
from shoal.search.selection.corpora import Corpus, read_ids
from shoal.search.selection.refining import Signals, texts_of_rows, write_generation
from shoal.trainables.decoder import Decoder, initialise
from shoal.trainables.settings import DecoderShape
from shoal.trainables.tokenizer import Bytes
from tests.search.selection.test_select import write_group

SHAPE = DecoderShape(vocabulary=257, sequence_length=64, layers=1, heads=2, width=8)
WRITER = """
class Writer:
    def rewrite(self, asked):
        return [f"{each.action} of {each.text[:10]}" for each in asked]
"""


def write_model(folder: str, seed: int) -> None:
    module = Decoder(SHAPE)
    initialise(module, torch.Generator().manual_seed(seed))
    store = Store(folder)
    store.write("model.safetensors", save({name: value.numpy() for name, value in module.state_dict().items()}))
    store.write("config.json", json.dumps({"trainable": "decoder", "tokenizer": "bytes", "shape": vars(SHAPE)}))


@pytest.fixture
def run(tmp_path):
    (tmp_path / "writer_of_test.py").write_text(WRITER)
    write_model(str(tmp_path / "base"), 0)
    groups = {kind: write_group(tmp_path / kind, kind, 12, seed) for seed, kind in enumerate(("sea", "wood"))}
    values = {
        "name": "rounds",
        "directory": str(tmp_path / "run"),
        "code": str(tmp_path),
        "data": {
            "corpus": str(tmp_path / "corpus"),
            "groups": groups,
            "sequence_length": 64,
            "validation": 0.2,
            "test": 0.2,
        },
        "hyperparameters": {"learning_rate": {"kind": "float", "low": 0.001, "high": 0.01}},
        "refine": {"made": "writer_of_test:Writer", "base": str(tmp_path / "base"), "rounds": 3, "patience": 2},
    }
    return checked_run(values, "run.yaml")


@pytest.fixture
def trained(monkeypatch):
    """Put in place of a run what it leaves behind; returns the scores to come, and the rows of each."""
    scores, seen = [-3.0, -2.0, -2.5], []

    class Trainer:
        @staticmethod
        def run_new(run, console, resume):
            if Store(run.directory).exists("summary.json"):
                return
            manifest = find_corpus(run.data)
            seen.append({name: group.splits["train"].rows for name, group in manifest.groups.items()})
            write_model(f"{run.directory}/best", len(seen))
            Store(run.directory).write_json(
                "summary.json", {"status": "done", "best_score": scores[len(seen) - 1]}
            )

    monkeypatch.setattr(refine, "runner", lambda kind: Trainer)
    monkeypatch.setattr(refine.directory, "summary", lambda store: store.read_json("summary.json"))
    return scores, seen


def said(run) -> list[str]:
    out = StringIO()
    refine.refine_rows(run, Console(file=out, width=200))
    return out.getvalue().splitlines()


def test_rounds_follow_one_another_and_the_record_says_what_was_done(run, trained) -> None:
    lines, (_, seen) = said(run), trained
    record = Store(run.directory).read_json("refine.json")["rounds"]
    assert [round["score"] for round in record] == [-3.0, -2.0, -2.5] and len(seen) == 3
    assert record[-1]["ended"] == "all 3 rounds are done" and lines[-1].endswith("best round: 1")
    for number, (now, after) in enumerate(pairwise(record)):
        # simplified rows are replaced one by one; each seed adds a row
        assert after["rows"] == now["rows"] + now["actions"]["seed"] == sum(seen[number + 1].values())
        assert (
            now["made"] == now["actions"]["simplify"] + now["actions"]["rewrite"] + now["actions"]["seed"] > 0
        )
        actions = Store(f"{run.directory}/round-{number}").read_table("actions.parquet")
        assert {"loss_before", "loss_after", "similarity", "rating"} <= set(actions.column_names)
        assert actions["action"].to_pylist().count("simplify") == now["actions"]["simplify"]


def test_a_command_that_was_stopped_goes_on_with_the_round(run, trained, monkeypatch) -> None:
    def stopped(*arguments):
        raise KeyboardInterrupt

    wrapped = refine.write_generation
    monkeypatch.setattr(refine, "write_generation", stopped)
    with pytest.raises(KeyboardInterrupt):
        said(run)
    monkeypatch.setattr(refine, "write_generation", wrapped)
    said(run)
    _, seen = trained
    assert len(seen) == 3  # the first round was not trained again
    assert said(run)[-1].startswith("refine: ends") and len(seen) == 3


@pytest.mark.parametrize("nothing", [None, " \n"])
def test_a_next_corpus_by_hand(run, nothing) -> None:
    prepare_corpus(run.data, print)
    corpus = Corpus(run.data, find_corpus(run.data))
    ids, rows = read_ids(corpus), len(read_ids(corpus))
    tokens = np.concatenate([as_rows(corpus.store.read_table(file)) for file in corpus.files])
    embedding = np.random.default_rng(0).normal(size=(rows, 3))
    action, seeds = np.zeros(rows, np.int8), np.zeros(rows, bool)
    action[0], action[1], seeds[2], seeds[0] = 1, 2, True, True
    asked = []

    class Writer:
        def rewrite(self, given):
            asked.extend(given)
            return [nothing if each.action == "rewrite" else "new " * 40 for each in given]

    place = run.data.model_copy(update={"corpus": f"{run.data.corpus}-next", "content": None})
    flagged = Flagged(action, seeds)
    manifest, generation = write_generation(
        corpus, place, Signals(ids, tokens, {}, embedding), flagged, 0, Writer()
    )
    assert [(each.action, len(each.near)) for each in asked] == [
        ("simplify", 0),
        ("rewrite", 0),
        ("seed", 2),
        ("seed", 2),
    ]
    # row 0 is replaced and seeds another, row 1 stays as nobody rewrote it, row 2 stays and seeds another
    found = Corpus(place.model_copy(update={"content": manifest.content}), manifest)
    now = read_ids(found)
    assert len(now) == rows + 2 and set(ids[1:]) < set(now.tolist()) and ids[0] not in now
    assert sorted(generation.parent[generation.action != 0].tolist()) == sorted([ids[0], ids[0], ids[2]])
    written = np.concatenate([as_rows(found.store.read_table(file)) for file in found.files])
    new = written[~np.isin(now, ids)]
    assert len(new) == 3 and (new == Bytes().encode(("new " * 40)[:64])).all()
    # held-out rows are the pool's
    for name, group in corpus.groups.items():
        assert manifest.groups[name].splits["validation"].files == group.splits["validation"].files


def test_what_only_fills_a_row_is_no_part_of_its_text(run) -> None:
    prepare_corpus(run.data, print)
    corpus = Corpus(run.data, find_corpus(run.data))
    row = np.full(64, Bytes.end, np.uint16)
    row[:3] = Bytes().encode("abc")
    assert texts_of_rows(corpus, row[None]) == ["abc"]


@pytest.mark.parametrize(
    "change, wanted",
    [
        ({"made": "writer_of_test:None_"}, r"refine.made: writer_of_test:None_ cannot be made: AttributeError"),
        ({"made": "writer_of_test:Mute"}, r"must have a method rewrite\(asked\), but has none"),
        ({"made": "writer_of_test:Short"}, r"rewrite\(asked\) must return a text, or None, for each of"),
        ({"made": "writer_of_test:Silent"}, r"or None, for each of \d+ requests, got NoneType"),
        ({"made": "writer_of_test:InWords"}, r"must return a number for each of \d+ texts, got \d+ of str\."),
        (
            {"made": "writer_of_test:Gone"},
            r"refine.made: rewrite of Gone failed: writer_of_test.py:\d+: SystemExit: 4",
        ),
        (
            {"made": "writer_of_test:Lost"},
            r"refine.made: rate of Lost failed: writer_of_test.py:\d+: KeyError: 'a'",
        ),
        ({"base": "nowhere"}, r"refine.base: must be the folder of an exported model or of transformers"),
    ],
)
def test_bad_input_is_one_clear_line(run, trained, tmp_path, change, wanted) -> None:
    file = Path(tmp_path, "writer_of_test.py")
    file.write_text(
        WRITER
        + "\nclass Mute:\n    pass\n"
        + "\nclass Short:\n    def rewrite(self, asked):\n        return ['one']\n"
        + "\nclass Silent:\n    def rewrite(self, asked):\n        pass\n"
        + "\nclass Gone(Writer):\n    def rewrite(self, asked):\n        raise SystemExit(4)\n"
        + "\nclass Lost(Writer):\n    def rate(self, texts):\n        return {}['a']\n"
        + "\nclass InWords(Writer):\n    def rate(self, texts):\n        return ['good' for _ in texts]\n"
    )
    import sys

    sys.modules.pop("writer_of_test", None)
    run = run.model_copy(update={"refine": run.refine.model_copy(update=change)})
    with pytest.raises(InputError, match=wanted) as caught:
        said(run)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_refined(run) -> None:
    with pytest.raises(InputError, match="refine: the file must say who rewrites rows"):
        said(run.model_copy(update={"refine": None}))
    with pytest.raises(InputError, match="refine: needs a population of decoders"):
        said(run.model_copy(update={"trainable": "toy"}))
