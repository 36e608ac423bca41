"""Rounds of rewriting by adapters: each round's scorer is the base with the adapter that the round trained."""

import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("transformers")

from shoal.cluster.rows import as_rows
from shoal.cluster.storage import Store
from shoal.search.corpus.manifest import find_corpus
from shoal.search.errors import InputError
from shoal.search.load import checked_run
from shoal.search.records.pretrained import export_pretrained
from shoal.search.runs import refine
from shoal.search.selection.corpora import Corpus, read_ids
from shoal.search.selection.language import open_reader
from shoal.trainables.handover import handed_out
from shoal.trainables.scoring import row_losses
from tests.helpers.pretrained import causal, causal_run, tiny_model
from tests.search.selection.test_refining import WRITER
from tests.search.selection.test_select import write_group

LENGTH = 32


@pytest.fixture
def run(tmp_path):
    (tmp_path / "writer_of_test.py").write_text(WRITER)
    groups = {kind: write_group(tmp_path / kind, kind, 12, seed) for seed, kind in enumerate(("sea", "wood"))}
    values = causal_run(
        str(tmp_path),
        groups=groups,
        data__tokenizer=tiny_model(),
        data__validation=0.2,
        data__test=0.2,
        refine={"made": "writer_of_test:Writer", "base": tiny_model(), "rounds": 3, "patience": 3},
        code=str(tmp_path),
    )
    return checked_run(values, "run.yaml")


def rows_of(data) -> tuple[np.ndarray, np.ndarray]:
    corpus = Corpus(data, find_corpus(data))
    tokens = np.concatenate([as_rows(corpus.store.read_table(file)) for file in corpus.files])
    return read_ids(corpus), tokens


@pytest.fixture
def trained(monkeypatch) -> list:
    """Put in place of a run one member that trains an adapter on the round's rows; returns what it read."""
    seen = []

    class Trainer:
        @staticmethod
        def run_new(run, console, resume) -> None:
            if Store(run.directory).exists("summary.json"):
                return
            seen.append(run)
            member = causal(path=tiny_model(), rows=rows_of(run.data)[1], recipe={"learning_rate": 0.05})
            member.train(3 + len(seen))
            told = {"trainable": "causal_lm", "step": 3}
            export_pretrained(
                run, handed_out(member.state)["weights"], told, Store(f"{run.directory}/best"), False
            )
            Store(run.directory).write_json("summary.json", {"status": "done", "best_score": float(len(seen))})

    monkeypatch.setattr(refine, "runner", lambda kind: Trainer)
    monkeypatch.setattr(refine.directory, "summary", lambda store: store.read_json("summary.json"))
    return seen


def refined(run) -> list[dict]:
    refine.refine_rows(run, Console(file=StringIO(), width=200))
    return Store(run.directory).read_json("refine.json")["rounds"]


def test_each_round_scores_its_rows_by_its_own_adapter(run, trained) -> None:
    rounds = refined(run)
    assert len(rounds) == len(trained) == 3 and rounds[-1]["ended"] == "all 3 rounds are done"
    means = []
    for number, of_round in enumerate(trained):
        best = f"{run.directory}/round-{number}/best"
        assert Store(best).exists("adapter_model.safetensors") and not Store(best).exists("config.json")
        table = Store(f"{run.directory}/round-{number}").read_table("actions.parquet")
        ids, tokens = rows_of(of_round.data)
        assert table["row_id"].to_pylist() == ids.tolist()
        for name, model in (("loss_before", tiny_model()), ("loss_after", best)):
            reader = open_reader("key", model, tiny_model(), LENGTH, "cpu")
            expected = reader.judge(tokens, row_losses)
            np.testing.assert_allclose(table[name].to_numpy(), expected, atol=1e-4)
        means.append(table["loss_after"].to_numpy().mean())
        assert means[-1] < table["loss_before"].to_numpy().mean()  # the adapter has learnt
        assert np.ptp(table["similarity"].to_numpy()) > 0
    assert len(set(means)) == 3
    assert rounds[1]["rows"] == rounds[0]["rows"] + rounds[0]["actions"]["seed"]


def test_it_goes_on_between_rounds_with_the_adapter_that_is_there(run, trained, monkeypatch) -> None:
    def stopped(*arguments):
        raise KeyboardInterrupt

    wrapped = refine.write_generation
    monkeypatch.setattr(refine, "write_generation", stopped)
    with pytest.raises(KeyboardInterrupt):
        refined(run)
    monkeypatch.setattr(refine, "write_generation", wrapped)
    assert len(refined(run)) == len(trained) == 3  # the first round was not trained again


def test_an_adapter_whose_base_is_gone_is_one_clear_line(run, trained, tmp_path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "gone")}))
    gone = run.model_copy(update={"refine": run.refine.model_copy(update={"base": str(folder)})})
    with pytest.raises(InputError, match=r"refine\.base") as raised:
        refined(gone)
    assert "\n" not in str(raised.value)
