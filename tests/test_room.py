"""How many broods a cluster has room for."""

from pathlib import Path

import pytest

from cluster import session
from search import population
from search.errors import InputError
from search.load import load_run

TOY = str(Path(__file__).parent.parent / "examples/toy.yaml")


@pytest.fixture
def room(monkeypatch):
    """Return how many broods find room on a cluster, and what each worker asks for."""

    def broods(had: dict[str, float], *changes: str) -> tuple[int, dict[str, float]]:
        monkeypatch.setattr(population, "capacity", lambda: had)
        run = population.with_room(load_run(TOY, ["population.members=8", *changes]))
        return run.cluster.broods, population.brood_resources(run).worker()

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


def test_a_cluster_that_grows_is_waited_for(room, monkeypatch) -> None:
    had, asked = {"CPU": 0.0}, []

    def grow(bundles: list[dict[str, float]]) -> None:
        asked.extend(bundles)
        had["CPU"] = 4.0

    monkeypatch.setattr(session, "request_resources", grow)
    monkeypatch.setattr(session, "capacity", lambda: had)
    cluster = "cluster={broods: 2, workers_per_brood: 1, cpus_per_worker: 1.5, patience: 60}"
    assert room(had, cluster)[0] == 2
    assert asked == [{"CPU": 1.5}] * 2


def test_patience_ends(monkeypatch) -> None:
    monkeypatch.setattr(session, "request_resources", lambda bundles: None)
    monkeypatch.setattr(session, "capacity", lambda: {"CPU": 1.0})
    monkeypatch.setattr(session, "SECONDS_BETWEEN_LOOKS", 0.0)
    session.wait_for_room([{"CPU": 2.0}], 0.05)
