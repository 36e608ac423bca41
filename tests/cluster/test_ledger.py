"""The ledger on an embedded Ray: shared out, saved, killed and brought back."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from shoal.cluster import ledger
from shoal.cluster.ledger import FLIGHT, Sender, start_ledger
from shoal.cluster.session import session
from shoal.cluster.storage import Store
from shoal.policies.sampling.infobatch import InfoBatch
from shoal.policies.sampling.interface import Context
from shoal.policies.sampling.losses import LastLosses

pytestmark = pytest.mark.ray

ROWS = 1003


@pytest.fixture(scope="module", autouse=True)
def connected() -> Iterator[None]:
    with session():
        yield


def records(seed: int, count: int = 4000, first: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    steps = rng.integers(first, first + 50, count)
    return [
        rng.integers(0, ROWS, count),
        rng.exponential(1.0, count).astype(np.float32),
        steps,
        steps * 0 + seed,
    ]


def parts(columns: list[np.ndarray], size: int) -> list[list[np.ndarray]]:
    return [[column[start : start + size] for column in columns] for start in range(0, len(columns[0]), size)]


def alone(*all_records: list[np.ndarray]) -> np.ndarray:
    book = LastLosses(ROWS)
    for each in all_records:
        book.observe(*each)
    return book.loss


def kept(losses: np.ndarray) -> list[int]:
    ids = np.arange(ROWS)
    plan = InfoBatch().plan(ids, {"loss": losses}, Context(2, 10, 0, ROWS))
    return ids[plan.decide(ids, {"loss": losses}).copies > 0].tolist()


@pytest.mark.parametrize("shards", [1, 3])
def test_shards_and_senders_hold_what_one_book_would(tmp_path: Path, monkeypatch, shards: int) -> None:
    monkeypatch.setattr(ledger, "ROWS_A_CALL", 100)
    found = start_ledger(LastLosses, ROWS, str(tmp_path), shards)
    senders = [Sender(found) for _ in range(2)]
    for place, sender in enumerate(senders):
        for part in parts(records(place), 64):
            sender.send(*part)
            assert len(sender.flying) <= FLIGHT
    for sender in senders:
        sender.flush()
    expected = alone(records(0), records(1))
    assert np.array_equal(found.read("loss"), expected, equal_nan=True)
    found.mark(1)
    senders[0].send(*records(2, first=100))
    senders[0].flush()
    # a snapshot is of its moment
    assert np.array_equal(found.read("loss", 1), expected, equal_nan=True)
    assert not np.array_equal(found.read("loss"), expected, equal_nan=True)


def kill(shard: Any) -> None:
    """Kill a shard and wait until it is back: the old one may still answer for a moment."""
    birth = ray.get(shard.observe.remote(np.empty(0, np.int64)))
    ray.kill(shard, no_restart=False)
    while ray.get(shard.observe.remote(np.empty(0, np.int64))) == birth:
        time.sleep(0.01)


def test_a_shard_that_is_killed_within_an_epoch_leaves_the_decisions_as_they_were(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(ledger, "ROWS_A_CALL", 100)
    found = start_ledger(LastLosses, ROWS, str(tmp_path), 2)
    senders = [Sender(found) for _ in range(2)]
    for place, sender in enumerate(senders):
        sender.send(*records(place))
        sender.flush()
    found.mark(1)
    for sender in senders:
        sender.saved(1)
    halves = [parts(records(2 + place, first=50), 2000) for place in range(2)]
    for sender, half in zip(senders, halves, strict=True):
        sender.send(*half[0])
    senders[0].flush()  # it has been told that all is in: the second must still notice the death
    kill(found.shards[1])
    for sender, half in zip(senders, halves, strict=True):
        sender.send(*half[1])
    for sender in senders:
        sender.flush()
    expected = alone(
        *(records(seed) for seed in range(2)), *(records(2 + place, first=50) for place in range(2))
    )
    losses = found.read("loss")
    assert np.array_equal(losses, expected, equal_nan=True) and kept(losses) == kept(expected)
    # snapshots come back too
    assert np.array_equal(found.read("loss", 1), alone(records(0), records(1)), equal_nan=True)
    # and one that is killed after all was flushed
    kill(found.shards[0])
    for sender in senders:
        sender.flush()
    assert np.array_equal(found.read("loss"), expected, equal_nan=True)


def test_a_ledger_comes_back_from_its_files_as_of_a_mark(tmp_path: Path) -> None:
    found, store = start_ledger(LastLosses, ROWS, str(tmp_path), 2), Store(str(tmp_path))
    sender, states = Sender(found), []
    for mark in range(3):
        sender.send(*records(mark, 300, first=50 * mark))
        sender.flush()
        found.mark(mark)
        states.append(found.read("loss"))
    assert len(store.names("ledger")) == 4  # of two marks and two shards
    again = start_ledger(LastLosses, ROWS, str(tmp_path), 2)
    assert np.array_equal(again.read("loss", 2), states[2], equal_nan=True)
    ledger.forget_after(store, 1)
    before = start_ledger(LastLosses, ROWS, str(tmp_path), 2)
    assert np.array_equal(before.read("loss"), states[1], equal_nan=True)
    ledger.forget_after(store, -1)
    assert np.isnan(start_ledger(LastLosses, ROWS, str(tmp_path), 2).read("loss")).all()
