"""What is emitted, without Ray: the declared metrics, and nothing per member."""

import math
from pathlib import Path

import pytest

from shoal.cluster import metrics
from shoal.cluster.metrics import Clock, Meter
from shoal.policies.population import Order
from shoal.search.driver.metrics import Measure
from shoal.search.load import load_run
from shoal.search.messages import GroupMixture, MixtureAccount, Row

ROOT = Path(__file__).parents[3]
HYPERPARAMETERS = {"learning_rate": 0.1}
SEARCHED = "hyperparameters={learning_rate: {kind: float, low: 0.001, high: 0.1}}"


@pytest.fixture
def emitted(monkeypatch) -> dict[tuple, float]:
    """Return what Ray's gauges and counters hold, by name and labels."""
    held: dict[tuple, float] = {}

    class Fake:
        def __init__(self, name, description="", tag_keys=()):
            self.name, self.keys = name, tag_keys

        def key(self, tags):
            assert set(tags) == set(self.keys) and all(isinstance(value, str) for value in tags.values())
            return (self.name, *(tags[key] for key in self.keys))

        def set(self, value, tags):
            held[self.key(tags)] = value

        def inc(self, value, tags):
            assert value > 0
            held[self.key(tags)] = held.get(self.key(tags), 0.0) + value

    monkeypatch.setattr(metrics.metrics, "Gauge", Fake)
    monkeypatch.setattr(metrics.metrics, "Counter", Fake)
    return held


def rows(round_: int, scores: list[float]) -> list[Row]:
    return [
        Row(
            member,
            round_,
            25 * round_,
            score=score,
            losses={"code": -score, "law": 2.0},
            rows=8 * 25 * round_,
            tokens=128 * 8 * 25 * round_,
        )
        for member, score in enumerate(scores)
    ]


def test_a_round_is_emitted_as_declared(emitted) -> None:
    run = load_run(
        str(ROOT / "examples/demo.yaml"),
        ["population.members=4", "mixing=null", SEARCHED, "data.proportions={code: 3, docs: 0, law: 1}"],
    )
    measure = Measure(run)
    measure.round(1, rows(1, [-3.0, -1.0, math.nan, -2.0]), [Order(0, 1, HYPERPARAMETERS)])
    measure.failed(rows(1, [math.nan])[0], "ValueError: no")
    # an order whose donor is its member changes hyperparameters only
    measure.round(
        2, rows(2, [-3.0, -1.0, -4.0, -2.0]), [Order(2, 2, HYPERPARAMETERS), Order(0, 1, HYPERPARAMETERS)]
    )
    by_run = {key[0]: value for key, value in emitted.items() if key[1:] == ("demo",)}
    lag = by_run.pop("shoal_checkpoint_lag_seconds")
    assert 0 <= lag < 5
    # 3 members trained in the first round and 4 in the second, 25 steps of 8 rows of 128 tokens each
    assert by_run == {
        "shoal_step": 50,
        "shoal_failed_members": 0,
        "shoal_best_score": -1.0,
        "shoal_median_score": -2.5,
        "shoal_worst_score": -4.0,
        "shoal_exploits": 2,
        "shoal_failures": 1,
        "shoal_member_steps": 175,
        "shoal_rows": 1400,
        "shoal_tokens": 179200,
    }
    assert emitted["shoal_proportion", "demo", "code"] == 0.75
    assert emitted["shoal_proportion", "demo", "docs"] == 0.0
    assert emitted["shoal_group_loss", "demo", "code"] == 1.0


def test_a_mixture_that_moves_and_rows_that_are_kept_are_means_over_members(emitted) -> None:
    measure = Measure(load_run(str(ROOT / "examples/demo.yaml"), ["population.members=4"]))
    found = []
    for row, share in zip(rows(1, [-3.0, -1.0]), (0.25, 0.75), strict=True):
        groups = [GroupMixture(name, each, 0, 1, [], []) for name, each in (("code", share), ("law", 0.5))]
        found.append(row._replace(mixture=MixtureAccount(groups, "", 0, 0, 0), kept=share / 2))
    measure.round(1, found, [])
    assert emitted["shoal_proportion", "demo", "code"] == 0.5
    # no policy speaks of docs: its share is the file's, a third
    assert emitted["shoal_proportion", "demo", "docs"] == pytest.approx(1 / 3)
    assert emitted["shoal_kept_fraction", "demo"] == 0.25


def test_members_that_are_not_level_count_their_own_steps(emitted) -> None:
    measure = Measure(load_run(str(ROOT / "examples/demo.yaml"), ["population.members=4"]))
    measure.round(
        1, [row._replace(step=step) for row, step in zip(rows(1, [-3.0, -1.0]), (25, 25), strict=True)], []
    )
    # one member has trained two intervals more, the other none
    measure.round(
        1, [row._replace(step=step) for row, step in zip(rows(1, [-3.0, -1.0]), (75, 25), strict=True)], []
    )
    assert emitted["shoal_member_steps", "demo"] == 100
    assert emitted["shoal_step", "demo"] == 25


def test_every_declared_metric_is_emitted(emitted, monkeypatch) -> None:
    shared = "sampling={rule: {kind: infobatch}, view: brood}"
    changes = ["population.members=4", "mixing=null", SEARCHED, shared]
    measure = Measure(load_run(str(ROOT / "examples/demo.yaml"), changes))
    monkeypatch.setattr("shoal.search.driver.metrics.ledger_rows", lambda run: 1000)
    found = [row._replace(kept=0.5) for row in rows(1, [-3.0, -1.0])]
    measure.round(1, found, [Order(0, 1, HYPERPARAMETERS)])
    measure.failed(rows(1, [math.nan])[0], "ValueError: no")
    clock = Clock()
    with clock.phase("compute"):
        pass
    clock.flush(measure.meter)
    assert {key[0] for key in emitted} == {metric.name for metric in metrics.METRICS}


def test_labels_never_grow_with_the_population() -> None:
    assert {label for metric in metrics.METRICS for label in metric.labels} == {"run", "group", "phase"}
    assert len({metric.series for metric in metrics.METRICS}) == len(metrics.METRICS)


def test_gauges_are_set_again_while_the_run_lasts(emitted) -> None:
    meter = Meter("toy")
    meter.set(metrics.STEP, 4)
    emitted.clear()
    meter.refresh()
    assert emitted == {("shoal_step", "toy"): 4}


def test_what_an_inner_phase_spends_is_not_the_outers(monkeypatch) -> None:
    # the clock is read at both ends of each phase: compute 0 to 10, data in it 2 to 5, again 6 to 7
    ticks = iter([0.0, 2.0, 5.0, 6.0, 7.0, 10.0])
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: next(ticks))
    clock = Clock()
    with clock.phase("compute"):
        with clock.phase("data"):
            pass
        with clock.phase("data"):
            pass
    assert clock.spent == {"compute": 6.0, "data": 4.0, "exchange": 0.0, "checkpoint": 0.0}
