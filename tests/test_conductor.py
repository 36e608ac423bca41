import math
from pathlib import Path

import pytest

from cluster.storage import Store
from policies import population
from search.driver.conductor import Conductor
from search.load import load_run

TOY = str(Path(__file__).parent.parent / "examples/toy.yaml")


class Watches:
    def __init__(self) -> None:
        self.failures: list[tuple[int, str]] = []

    def say(self, line) -> None: ...

    def failed(self, row, trace) -> None:
        self.failures.append((row["member"], trace))

    def round(self, round_, rows, orders) -> None: ...


@pytest.fixture
def conductor(tmp_path) -> Conductor:
    run = load_run(TOY, [f"directory={tmp_path}", "population.replacements=1"])
    state = population.start(run.space(), run.population.members, run.seed)
    given: dict[int, list | None] = {}
    made = Conductor(run, Store(str(tmp_path)), run.space(), run.rules(), state, given.__setitem__, Watches())
    made.given = given
    return made


def reports(round_: int, scores: list[float], **errors: str) -> dict:
    rows = [
        {"member": member, "round": round_, "step": 4 * round_, "brood": 0, "score": score}
        | {"train_loss": 0.0, "train_seconds": 0.0, "evaluate_seconds": 0.0}
        for member, score in enumerate(scores)
    ]
    for name, error in errors.items():
        rows[int(name.removeprefix("member"))]["error"] = error
    return {"reports": rows}


def test_a_failed_member_is_told_once_and_replaced(conductor, tmp_path) -> None:
    conductor.receive(reports(1, [1.0, math.nan, 3.0, 2.0], member1="Traceback\nValueError: no"))
    assert conductor.watcher.failures == [(1, "Traceback\nValueError: no")]
    assert 1 in [order[0] for order in conductor.given[1]]
    kept = tmp_path / "failures/round-000001-member-00001.txt"
    assert kept.read_text() == "Traceback\nValueError: no"
    # it may be replaced once: now it stays as it is, without a word of its own
    conductor.receive(reports(2, [1.0, 0.5, 3.0, 2.0]))
    conductor.receive(reports(3, [1.0, math.nan, 3.0, 2.0]))
    conductor.receive(reports(4, [1.0, math.nan, 3.0, 2.0]))
    assert [member for member, _ in conductor.watcher.failures] == [1, 1]
    assert "diverged" in conductor.watcher.failures[-1][1]
    assert all(1 not in [order[0] for order in conductor.given[round_]] for round_ in (3, 4))


def test_when_all_have_failed_the_run_ends_with_the_last_reason(conductor) -> None:
    conductor.receive(reports(1, [math.nan] * 4, member3="ValueError: no such file"))
    assert conductor.given == {1: None}
    assert "all members have failed by step 4" in conductor.failure
    assert conductor.failure.endswith("ValueError: no such file")


def test_a_worker_that_is_told_to_go_makes_its_round_a_checkpoint(conductor, tmp_path) -> None:
    settings = conductor.run.checkpoint.model_copy(update={"every": 10})
    conductor.run = conductor.run.model_copy(update={"checkpoint": settings})
    for round_ in range(1, 5):
        conductor.receive(reports(round_, [1.0, 0.5, 3.0, 2.0]) | {"leaving": round_ == 3})
        conductor.wait()
    assert [path.parent.name for path in tmp_path.glob("checkpoints/*/decisions.json")] == ["round-000003"]
