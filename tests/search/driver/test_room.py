"""How many broods a cluster has room for."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from shoal.cluster import session
from shoal.search.driver import room as room_module
from shoal.search.driver.room import Regrouped, Room
from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.runs import population as running

TOY = str(Path(__file__).parents[3] / "examples/toy.yaml")


@pytest.fixture
def room(monkeypatch):
    """Return how many broods find room on a cluster, and what each worker asks for."""

    def broods(had: dict[str, float], *changes: str) -> tuple[int, dict[str, float]]:
        monkeypatch.setattr(room_module, "capacity", lambda: had)
        nodes = [{"Alive": True, "Resources": had}, {"Alive": False, "Resources": {"CPU": 99}}]
        monkeypatch.setattr(session.ray, "nodes", lambda: nodes)
        run = room_module.with_room(load_run(TOY, ["population.members=8", *changes]))
        return run.cluster.broods, room_module.brood_resources(run).worker()

    return broods


def test_all_broods_are_taken_where_they_fit(room) -> None:
    cluster = "cluster={broods: 4, broods_least: 1, cpus_per_worker: 1, resources: {spot: 1}}"
    assert room({"CPU": 5, "spot": 4}, cluster) == (4, {"CPU": 1, "GPU": 0, "spot": 1})


def test_fewer_broods_begin_where_not_all_fit(room) -> None:
    # 3 broods need 3.15 CPUs with their trials, 2 need 2.1
    cluster = "cluster={broods: 4, broods_least: 2, cpus_per_worker: 1}"
    assert room({"CPU": 3}, cluster)[0] == 2
    with pytest.raises(InputError, match=r"2 broods need 2.1 CPUs at once, but the Ray cluster has 1\."):
        room({"CPU": 1}, cluster)


def test_without_a_least_number_all_must_fit(room) -> None:
    with pytest.raises(
        InputError, match=r"4 broods need 4 spots at once, but the Ray cluster has 3\. .*resources"
    ):
        room({"CPU": 9, "spot": 3}, "cluster={broods: 4, cpus_per_worker: 1, resources: {spot: 1}}")


def test_a_worker_lives_on_one_node(monkeypatch) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 1.5, "GPU": 1}}] * 4
    monkeypatch.setattr(session.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(room_module, "capacity", lambda: {"CPU": 6.0, "GPU": 4.0})
    assert session.places({"CPU": 0.5, "GPU": 0.0}) == 12
    assert session.places({"CPU": 0.5, "GPU": 1.0}) == 4
    shape = "cluster={broods: 2, workers_per_brood: 1, cpus_per_worker: 2}"
    # six CPUs would do for two workers of two, but no node has more than 1.5
    with pytest.raises(InputError, match=r"the nodes hold 0 workers of .*lives on one node"):
        room_module.brood_resources(load_run(TOY, [shape]))


def test_a_cluster_that_grows_is_waited_for(room, monkeypatch) -> None:
    had, asked = {"CPU": 0.0}, []

    def grow(bundles: list[dict[str, float]]) -> None:
        asked.append(bundles)
        had["CPU"] = 4.0

    monkeypatch.setattr(session, "request_resources", grow)
    monkeypatch.setattr(session, "capacity", lambda: had)
    cluster = "cluster={broods: 2, workers_per_brood: 1, cpus_per_worker: 1.5, patience: 60}"
    assert room(had, cluster)[0] == 2
    # Ray would keep the request after the run's end: it is taken back
    assert asked == [[{"CPU": 1.5}] * 2, []]


def test_patience_ends(monkeypatch) -> None:
    asked, slept, now = [], [], [100.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(session, "request_resources", lambda bundles: asked.append(bundles))
    monkeypatch.setattr(session, "capacity", lambda: {"CPU": 1.0})
    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    session.wait_for_room([{"CPU": 2.0}], 5.0)
    # looks after 0, 2, 4 and 6 s: the last is beyond the 5 s, and the request is taken back
    assert slept == [2.0] * 3 and asked == [[{"CPU": 2.0}], []]
    # without patience nothing is asked for
    session.wait_for_room([{"CPU": 2.0}], 0.0)
    assert len(asked) == 2


def counted(monkeypatch, counts: list[int], broods: int = 2) -> tuple[Room, list[str]]:
    """Run a watch over these counts of fitting broods, one a look; return it and what it did."""
    monkeypatch.setattr(room_module, "SECONDS_BETWEEN_LOOKS", 0.0)
    left, sent = iter(counts), []
    over = threading.Event()

    def fitting() -> int:
        found = next(left, None)
        if found is None:
            over.set()
            watch.over.set()
            return broods
        return found

    def send_home() -> None:
        sent.append("home")
        over.set()

    watch = Room(broods, fitting, send_home)
    with watch:
        assert over.wait(10)
    return watch, sent


def test_broods_go_home_when_another_number_fits_for_a_while(monkeypatch) -> None:
    watch, sent = counted(monkeypatch, [2, 3, 2, 3, 3, 3, 2])
    assert sent == ["home"]
    with pytest.raises(Regrouped, match="room for 3 broods in place of 2"):
        watch.check()


def test_a_node_that_only_restarts_changes_nothing(monkeypatch) -> None:
    watch, sent = counted(monkeypatch, [2, 1, 1, 2, 1, 2, 2, 2])
    assert not sent
    watch.check()


def test_a_regrouped_run_is_trained_on(monkeypatch) -> None:
    calls = iter([Regrouped(2, 1), Regrouped(1, 2), None])

    def train(run, watcher, store):
        if news := next(calls):
            raise news
        return "outcome"

    monkeypatch.setattr(running, "train_population", train)
    console = Console(record=True, quiet=False, width=200)
    assert running.train_on(load_run(TOY), None, None, console) == "outcome"
    assert console.export_text().count("going on from the last checkpoint") == 2


def test_the_room_of_broods_that_were_sent_home_is_freed(monkeypatch) -> None:
    ours, late = "0" * 28 + "02000000", "3" * 28 + "02000000"
    groups = {ours: "CREATED", "1" * 28 + "02000000": "REMOVED", "2" * 28 + "03000000": "CREATED"}
    removed: list[str] = []

    def remove(group) -> None:
        name = group.id.hex()
        # one that its dead controller had asked for comes about only now
        groups.update({name: "REMOVED"} if removed else {name: "REMOVED", late: "CREATED"})
        removed.append(name)

    # a controller that is still there would take room again
    alive = iter([{"a": {"ActorClassName": "TrainController"}}])
    context = SimpleNamespace(get_job_id=lambda: "02000000")
    monkeypatch.setattr(
        session, "placement_group_table", lambda: {name: {"state": state} for name, state in groups.items()}
    )
    monkeypatch.setattr(session, "remove_placement_group", remove)
    monkeypatch.setattr(session.state, "actor_table", lambda *_: next(alive, {}))
    monkeypatch.setattr(session.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(session.time, "sleep", lambda seconds: None)
    session.clear_away()
    assert removed == [ours, late]
