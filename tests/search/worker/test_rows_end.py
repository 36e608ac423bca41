"""Rows that are read to the end: members stop where they are, and so does the run, which is done."""

import copy
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal.cluster.storage import Store
from shoal.policies.mixing import normalise
from shoal.search.corpus.batches import MixedBatches
from shoal.search.driver.population import early_end
from shoal.search.errors import Exhausted
from shoal.search.load import load_run
from shoal.search.records import directory
from shoal.search.records.last import last_rows
from shoal.search.worker import asynchronous as turns
from shoal.search.worker.teams import Team
from shoal.trainables.member import copies
from shoal.trainables.toy import Toy
from tests.helpers.runs import ROOT, TOY, shoal, start, wait_for_round
from tests.search.worker.test_asynchronous import CHANGES, Post


class Rows:
    def take(self, cursor: int, count: int) -> np.ndarray:
        return np.zeros((count, 4), np.uint16)


class Reader(Toy):
    """A toy that takes a batch of two rows at each step, of a group that has so many."""

    def __init__(self, hyperparameters: dict[str, Any], rows: int):
        super().__init__(hyperparameters)
        self.batches = MixedBatches({"docs": Rows()}, normalise([1]), 2, limits=[rows], stop=True)

    def train(self, steps: int) -> float:
        for _ in range(steps):
            self.batches.next()
            super().train(1)
        return 0.5

    @copies
    def state(self):
        return copy.deepcopy(super().state() | {"batches": self.batches.state()})

    @copies
    def load(self, state, hyperparameters) -> None:
        super().load(state, hyperparameters)
        self.batches.load(state["batches"])


START = {"h0": 0.5, "h1": 0.5}


def test_a_team_trains_as_far_as_its_rows_go_and_says_so() -> None:
    team = Team({3: Reader(START, rows=13)})
    row = team.train(4)[3]
    assert not row.ended and row.train_loss == 0.5
    row = team.train(4)[3]  # six batches, and a row that is left over
    assert (row.step, row.ended) == (6, ["docs"]) and np.isfinite(row.score)
    again = team.train(4)[3]
    assert again.step == 6 and again.score == row.score
    # the last batch is the last of an interval: the next one would have none
    assert Team({3: Reader(START, rows=8)}).train(4)[3].ended == ["docs"]


def test_who_has_rows_left_goes_on_without_its_partner_unless_that_has_failed() -> None:
    team = Team({3: Reader(START, rows=12), 5: Reader(START, rows=80)})
    rows = team.train(8)  # together, as far as both can
    assert [(rows[number].step, [*rows[number].ended]) for number in (3, 5)] == [(6, ["docs"]), (6, [])]
    assert team.ends() == {3: ["docs"]}
    # nobody will take a failed one out of a stack, which cannot train then
    assert team.ends(failed={3}) == {3: ["docs"], 5: ["docs"]}


def test_where_there_never_was_a_batch_is_an_error() -> None:
    with pytest.raises(Exhausted, match="no batch of 2 rows left"):
        Team({3: Reader(START, rows=1)}).train(4)


@pytest.mark.parametrize("rows", [[44, 44, 44, 44], [44, 80, 44, 80], [400, 44, 44, 44]])
def test_each_member_that_waits_for_nobody_ends_where_its_rows_do(tmp_path, monkeypatch, rows) -> None:
    monkeypatch.setattr(
        turns,
        "build_members",
        lambda run, given, begun=None: {
            number: Reader(values, rows[number]) for number, values in given.items()
        },
    )
    run = load_run(TOY, [f"directory={tmp_path}", *CHANGES, "population.exploit=none"])
    post = Post(run, monkeypatch)
    assert not post.train(run)
    assert post.conductor.finished
    final, _ = last_rows(run, Store(run.directory))
    assert {number: row.step for number, row in final.items()} == {
        number: min(run.training.steps, each // 2) for number, each in enumerate(rows)
    }
    said = early_end(post.conductor)
    last = max(row.step for row in final.values())
    assert said.startswith(
        "the rows ended at step 22 of 40" if last == 22 else "the rows ended at steps 22 to 40"
    )
    # whoever goes on with it finds all at their ends
    again = Post(run, monkeypatch)
    again.conductor.tests.clear()
    assert not again.train(run) and again.conductor.finished


RUN = """
name: small
data: {{corpus: {corpus}, groups: {{letters: '{texts}/letters'}}, sequence_length: 32,
  validation: 0.2, test: 0.2, exhausted: stop}}
model: {{layers: 1, heads: 2, width: 16}}
training: {{steps: 4000, batch: 8, warmup: 2, evaluation_rows: 8}}
hyperparameters: {{learning_rate: {{kind: float, low: 0.0003, high: 0.03, log: true}}}}
population: {{members: 4, interval: 8}}
cluster: {{broods: 1, workers_per_brood: 2}}
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_a_run_whose_rows_end_is_done_with_report_and_best_member_also_where_it_was_killed(
    texts: Path, tmp_path: Path, mode: str
) -> None:
    file, place = tmp_path / "small.yaml", tmp_path / "run"
    file.write_text(RUN.format(corpus=tmp_path / "corpus", texts=texts))
    every = ["checkpoint.every=3"] if mode == "synchronous" else []
    changes = [f"directory={place}", f"population.mode={mode}", *every]
    process = start("run", str(file), *changes)
    wait_for_round(place, 3, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=400)
    said = shoal("resume", str(place))
    rows = Store(str(place)).read_table("metrics.parquet").to_pylist()
    (last,) = {max(row["step"] for row in rows if row["member"] == member) for member in range(4)}
    (final,) = {row.step for row in last_rows(load_run(str(place / "run.yaml")), Store(str(place)))[0].values()}
    assert final == last
    assert last % 8 and f"the rows ended at step {last} of 4000: letters read to the end" in said
    assert directory.summary(Store(str(place)))["status"] == "done"
    assert (place / "best/model.safetensors").exists()
    assert f"the rows ended at step {last}" in (place / "report.html").read_text()
    process = start("resume", str(place), folder=ROOT)
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 2 and "is finished" in said
