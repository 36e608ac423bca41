"""Who holds a run directory, and whether they are still there."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from shoal.cluster import lease
from shoal.cluster.storage import Store
from shoal.search.records import directory

ROOT = Path(__file__).parents[2]
DRIVER = """
import sys, time
from shoal.cluster import lease
store = lease.take(sys.argv[1])
store.write_json("summary.json", {"status": "running"})
print("here", flush=True)
time.sleep(60)
"""


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path))


def test_a_driver_that_was_killed_leaves_a_stopped_run(store) -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, store.uri], cwd=ROOT, stdout=subprocess.PIPE)
    assert driver.stdout.readline() == b"here\n"
    assert directory.summary(store)["status"] == "running"
    driver.kill()
    time.sleep(0.2)  # it has ended, but nobody has asked for its exit code
    assert not lease.alive(store)
    assert directory.summary(store)["status"] == "stopped"
    driver.communicate()
    # another process may have been given its number
    found = lease.holder(store)
    store.write_json(lease.LEASE, found | {"process": 1})
    assert directory.summary(store)["status"] == "stopped"
    # what has ended is not touched
    store.write_json("summary.json", {"status": "failed"})
    assert directory.summary(store)["status"] == "failed"


def test_a_driver_on_another_machine_is_known_by_its_last_beat(store) -> None:
    held = lease.take(store.uri)
    now = time.time()

    def known(taken: float, beat: float | None = None, by: str = "") -> bool:
        elsewhere = {"machine": "another", "time": now - taken}
        store.write_json(lease.LEASE, lease.holder(store) | elsewhere)
        if beat is not None:
            store.write_json(lease.BEAT, {"owner": by or held.owner, "time": now - beat})
        return lease.alive(store)

    assert known(taken=10)
    assert not known(taken=100)
    assert known(taken=100, beat=20)
    assert not known(taken=100, beat=90)
    # of a driver that this one has replaced
    assert not known(taken=100, beat=20, by="older")
    assert known(taken=10, beat=90, by="older")


def test_a_lease_of_an_older_shoal_says_nothing(store) -> None:
    store.write_json(lease.LEASE, {"epoch": 1, "owner": "somebody"})
    store.write_json("summary.json", {"status": "running"})
    assert directory.summary(store)["status"] == "running"


def test_who_holds_a_lease_beats_and_stops_with_it(store, monkeypatch) -> None:
    monkeypatch.setattr(lease, "SECONDS_BETWEEN_BEATS", 0.02)
    with lease.holding(store.uri) as held:
        beat = wait_for(lambda: store.read_json(lease.BEAT) if store.exists(lease.BEAT) else None)
        assert beat["owner"] == held.owner and abs(beat["time"] - time.time()) < 10
        assert lease.alive(store)
        newer = lease.take(store.uri)
        time.sleep(0.2)
        store.delete(lease.BEAT)
        time.sleep(0.2)
        assert not store.exists(lease.BEAT)  # the older driver is silent
        assert newer.held() and not held.held()
        with pytest.raises(lease.LeaseLost, match="taken over by another driver"):
            held.write("x", "")


def test_a_directory_that_is_deleted_is_not_made_anew(tmp_path) -> None:
    place = tmp_path / "run"
    held, worker = lease.take(str(place)), lease.StandingStore(str(place))
    worker.write("checkpoints/round-000001/member", b"weights")
    held.write("summary.json", "{}")
    Store(str(place)).delete("")
    for store in (held, worker):
        with pytest.raises(lease.LeaseLost, match="deleted or moved under the run"):
            store.write("checkpoints/round-000002/member", b"weights")
    assert not held.held() and not place.exists()


def wait_for(look):
    deadline = time.monotonic() + 120
    while (found := look()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found
