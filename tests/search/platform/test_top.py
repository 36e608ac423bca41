"""`shoal top` shows a run as its directory has it."""

import pytest
from rich.console import Console

from shoal.cluster import lease
from shoal.policies import population
from shoal.search.driver.progress import Progress
from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.messages import Row
from shoal.search.platform import top
from shoal.search.records import directory, tables
from tests.search.platform.test_cli import TOY, refused, shoal  # noqa: F401 - fixtures


@pytest.fixture
def store(tmp_path):
    """A run of four members after two rounds; in the second, member 3 copied member 0."""
    run = load_run(TOY, [f"directory={tmp_path}/run"])
    store = directory.create(run)
    state = population.start(run.space(), 4, run.seed)
    tables.write_starts(store, state)
    for round_ in (1, 2):
        rows = [
            Row(member, round_, 4 * round_, score=round_ - 0.25 * member, train_loss=0.5) for member in range(4)
        ]
        tables.write_metrics(store, round_, rows)
    order = population.Order(3, 0, {"h0": 0.123, "h1": 0.5})
    tables.write_events(store, 2, tables.copy_events([order], dict(enumerate(rows)), state))
    return store


def test_top_prints_the_newest_round(store, shoal) -> None:  # noqa: F811
    store.write_json("summary.json", {"status": "running"})
    lease.take(store.uri)
    said = shoal("top", store.uri)
    assert said.code == 0
    lines = said.out.splitlines()
    assert "step 8/200" in lines[0] and "best score 2.0000 (member 0)" in lines[0] and "1 exploits" in lines[0]
    assert [line.split()[0] for line in lines[2:6]] == ["0", "1", "2", "3"]
    assert "from 0" in lines[5] and "0.123" in lines[5]
    assert lines[-1] == "status: running"


def test_a_look_sees_only_what_is_new(store) -> None:
    run, _ = directory.open_run(store.uri)
    view = Progress(run, Console(quiet=True))
    seen = top.NewestRows()
    top.show_newest(view, seen, store)
    assert view.round_ == 2 and view.resumed == 2
    top.show_newest(view, seen, store)
    assert not view.rounds_per_second()
    rows = [Row(member, round=3, step=12) for member in range(4)]
    tables.write_metrics(store, 3, rows)
    top.show_newest(view, seen, store)
    assert view.round_ == 3 and view.exploits == 1 and view.donors == {}
    # members that are not level: only one is in the newest part, the others stay as they were
    tables.write_metrics(store, 4, [rows[2]._replace(score=7.0, round=9)])
    top.show_newest(view, seen, store)
    assert [row.score for row in view.rows][2] == 7.0 and len(view.rows) == 4
    # a run that was resumed drops what came after its checkpoint
    tables.drop_rounds_after(store, 2)
    top.show_newest(view, seen, store)
    assert view.round_ == 2


def test_top_waits_for_the_end(store, monkeypatch) -> None:
    said = iter(["running", "running", "done", "done"])
    looks = []
    monkeypatch.setattr(top, "run_status", lambda store: next(said))
    monkeypatch.setattr(top, "show_newest", lambda *_: looks.append(1))
    monkeypatch.setattr(top, "SECONDS_BETWEEN_READS", 0.0)
    console = Console(force_terminal=True, record=True, quiet=False, width=100)
    top.watch_run(store.uri, None, console, once=False)
    assert len(looks) == 3 and "status: done" in console.export_text()


def test_a_run_that_has_not_begun_says_so(tmp_path, shoal) -> None:  # noqa: F811
    directory.create(load_run(TOY, [f"directory={tmp_path}/run"]))
    said = shoal("top", f"{tmp_path}/run")
    assert "starting" in said.out and "status: not begun" in said.out


def test_top_of_nothing_is_refused(refused, monkeypatch) -> None:  # noqa: F811
    assert "is not a run directory" in refused("top", "runs/nowhere")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    assert "no address" in refused("top", "toy-1")


def test_a_job_that_is_not_ours_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(top.jobs.jobs, "job_client", lambda address: None)
    monkeypatch.setattr(top.jobs.jobs, "details", lambda client, job: None)
    with pytest.raises(InputError, match="neither a run directory nor"):
        top.run_directory_of("other-1", None)
