"""The report of a run of kind stages: its stages end to end, over the member-steps of all of them."""

import json

import pytest

from shoal.cluster.storage import Store
from shoal.policies import population
from shoal.policies.standings import rank
from shoal.search.errors import InputError
from shoal.search.messages import Row
from shoal.search.records import tables
from shoal.search.report.staged import read_stages, write_stages_report

ORIGIN = {"run": "whole-first", "member": 1, "weights": "ab", "map": "grown: width by 2, 3 slots kept"}


def stage(store: Store, members: int, rounds: int, first: float, width: int, origin=None) -> None:
    """Write a stage of 10 steps a round, whose losses fall by 0.1 in each."""
    store.write("run.yaml", json.dumps({"name": store.uri.rpartition("/")[2], "model": {"width": width}}))
    tables.write_starts(store, population.start({}, members, 0), origin)
    for round_ in range(1, rounds + 1):
        scores = [-(first - 0.1 * round_ + 0.01 * member) for member in range(members)]
        rows = [
            Row(member, round_, 10 * round_, score=score, losses={"code": -score})
            for member, score in enumerate(scores)
        ]
        tables.write_metrics(store, round_, rows)
        tables.write_events(
            store, round_, tables.copy_events([], dict(enumerate(rows)), population.start({}, members, 0))
        )
    best = rank(dict(enumerate(scores)))[0]
    told = {"status": "done", "best_member": best, "best_score": scores[best], "wall_seconds": 60.0}
    store.write_json("summary.json", told)


def whole(tmp_path) -> Store:
    store = Store(str(tmp_path / "whole"))
    store.write("run.yaml", json.dumps({"name": "whole", "stages": [{"name": "first"}, {"name": "last"}]}))
    return store


def test_steps_of_all_stages_are_counted(tmp_path) -> None:
    store = whole(tmp_path)
    stage(Store(f"{store.uri}/first"), members=2, rounds=3, first=5.0, width=8)
    stage(Store(f"{store.uri}/last"), members=4, rounds=2, first=4.0, width=16, origin=ORIGIN)
    first, last = read_stages(store, [{"name": "first"}, {"name": "last"}])
    # two members of 30 steps, then four of 10 and of 20
    assert [at for at, _ in first.curve] == [20, 40, 60]
    assert [at for at, _ in last.curve] == [100, 140]
    assert [round(value, 3) for _, value in last.curve if value is not None] == [3.9, 3.8]
    page = store.read(write_stages_report(store).removeprefix(f"{store.uri}/")).decode()
    assert "2 of 2 stages, 140 member-steps" in page
    assert "member 1, grown: width by 2, 3 slots kept" in page and "drawn weights" in page
    assert "Its weights are its own: it copied nobody." in page
    assert 'href="first/report.html"' in page and "model.width" in page


def test_a_stage_that_has_not_begun_is_left_out(tmp_path) -> None:
    store = whole(tmp_path)
    with pytest.raises(InputError, match="no stage yet"):
        write_stages_report(store)
    stage(Store(f"{store.uri}/first"), members=2, rounds=1, first=5.0, width=8)
    page = store.read(write_stages_report(store).removeprefix(f"{store.uri}/")).decode()
    assert "1 of 2 stages" in page
