"""A run directory with strangers in it, or with broken files: strangers are left alone, files are named."""

import shutil
from pathlib import Path

import pytest

from shoal.cluster import checkpoints, ledger
from shoal.cluster.lease import LEASE, take
from shoal.cluster.storage import BrokenFile, Store
from shoal.search.errors import InputError
from shoal.search.records import directory
from tests.helpers.directories import Told, goes_on, open_conductor, written
from tests.search.platform.test_cli import refused, shoal  # noqa: F401 - fixtures

READERS = ("status", "export", "schedule", "report", "top")


@pytest.fixture
def run(tmp_path):
    return written(tmp_path / "run", 4)


def strangers(place: Path) -> dict[Path, bytes]:
    """Put what is not ours wherever a run keeps its files."""
    folders = ["checkpoints", "checkpoints/round-000003", "checkpoints/round-000004"]
    folders += ["metrics.parquet", "lineage.parquet", "ledger", "failures", "."]
    for folder in folders:
        Path(place, folder).mkdir(exist_ok=True)
        for name in (".DS_Store", "notes.txt", "part-000003 (copy).parquet", ".part-000001.parquet.swp"):
            Path(place, folder, name).write_bytes(b"mine")
    for folder in ("round-latest", "round-3", "mine"):
        Path(place, "checkpoints", folder).mkdir()
        Path(place, "checkpoints", folder, "decisions.json").write_bytes(b"mine")
    Path(place, "checkpoints/round-000009").write_bytes(b"mine")
    Path(place, "ledger/mark-old-shard-00000.parquet").write_bytes(b"mine")
    return {file: b"mine" for file in place.rglob("*") if file.is_file() and file.read_bytes() == b"mine"}


def test_strangers_change_nothing_and_are_left_alone(tmp_path, run, shoal) -> None:  # noqa: F811
    place = tmp_path / "run"
    before = {command: shoal(command, str(place)) for command in READERS}
    mine = strangers(place)
    assert len(mine) > 30
    for command in READERS:
        assert shoal(command, str(place)) == before[command] and before[command].code == 0
    conductor = open_conductor(run, Store(run.directory), Told())
    assert conductor.round == 4
    goes_on(conductor, 8)
    ledger.forget_after(conductor.store, -1)
    assert {file: file.read_bytes() for file in mine} == mine
    store = conductor.store
    whole = [each for each in checkpoints.saved_rounds(store) if checkpoints.has_decisions(store, each)]
    assert whole == [8, 7]


def test_pieces_of_killed_writes_are_taken_away(tmp_path, run) -> None:
    pieces = [".decisions.json.0123abcd", ".member-00001.safetensors.89abcdef"]
    left = [tmp_path / "run/checkpoints/round-000003" / name for name in pieces]
    left.append(tmp_path / "run/metrics.parquet/.part-000004.parquet.00000000")
    for file in left:
        file.write_bytes(b"half")
    open_conductor(run, Store(run.directory), Told())
    assert not any(file.exists() for file in left)


BROKEN = {
    "run.yaml": ([*READERS, "replay", "resume"], [b"name: [", b"\xff\xfe", b"", b"- 1", b"name: x\nname: y\n"]),
    "summary.json": (
        ["status", "report", "top", "replay", "resume"],
        [b"", b"[]", b"{}", b'{"status"', b"\xff"],
    ),
    "checkpoints/round-000004/decisions.json": (
        ["status", "export", "schedule"],
        [b"", b"{}", b"[1]", b"null"],
    ),
    "checkpoints/round-000004/member-00001.safetensors": (["export"], [b"", b"\x08" * 20]),
    "metrics.parquet/part-000004.parquet": (READERS, [b"", b"PAR1" * 5]),
    "metrics.parquet/part-000002.parquet": (["report", "top"], [b"", b"PAR1" * 5]),
    "lineage.parquet/part-000000.parquet": (["schedule", "report", "top"], [b"", b"PAR1" * 5]),
    "job.json": (["status"], [b"", b"{}", b"7"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_in_one_line(tmp_path, run, refused, name: str) -> None:  # noqa: F811
    commands, contents = BROKEN[name]
    file = tmp_path / "run" / name
    for content in contents:
        file.write_bytes(content)
        for command in commands:
            options = ["--member", "1"] if command == "export" else []
            said = refused(command, str(tmp_path / "run"), *options)
            assert said.count("\n") == 1 and str(file) in said, (command, content, said)


def test_a_folder_in_place_of_a_file_is_named_too(tmp_path, run, refused) -> None:  # noqa: F811
    for name in ("summary.json", "metrics.parquet/part-000002.parquet"):
        file = tmp_path / "run" / name
        file.unlink()
        file.mkdir()
        said = refused("report", str(tmp_path / "run"))
        assert said.count("\n") == 1 and str(file) in said
        file.rmdir()
        shutil.copytree(tmp_path / "run/lineage.parquet", tmp_path / "elsewhere", dirs_exist_ok=True)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"owner": 1}', b"[]"])
def test_a_broken_lease_is_named(tmp_path, run, content: bytes) -> None:
    (tmp_path / "run" / LEASE).write_bytes(content)
    with pytest.raises(BrokenFile, match=r"run/lease.json is broken: it "):
        take(run.directory)


def test_a_table_of_another_kind_is_named(tmp_path, run, refused) -> None:  # noqa: F811
    part = tmp_path / "run/metrics.parquet/part-000004.parquet"
    shutil.copy(tmp_path / "run/lineage.parquet/part-000000.parquet", part)
    Store(run.directory).write_table("metrics.parquet/part-000004.parquet", other_table())
    assert f"{part} is broken: it has no column round" in refused("status", str(tmp_path / "run"))


def other_table():
    import pyarrow as pa

    return pa.table({"step": [1], "member": [0]})


def test_one_bad_run_hides_no_other(tmp_path, monkeypatch, shoal) -> None:  # noqa: F811
    for name in ("a", "b", "c"):
        written(tmp_path / "runs" / name, 2)
    (tmp_path / "runs/b/run.yaml").write_bytes(b"name: [")
    (tmp_path / "runs/notes").mkdir()
    (tmp_path / "runs/.DS_Store").touch()
    monkeypatch.chdir(tmp_path)
    said = shoal("status")
    assert said.code == 0 and said.out.count("interrupted") == 2
    assert "cannot be read" in said.out and "runs/b/run.yaml" in said.error and said.error.count("\n") == 1


def test_what_is_read_of_a_run_that_prunes_is_read_again(tmp_path, run, monkeypatch) -> None:
    """A run that goes on deletes the round that was chosen before it can be read."""
    store = Store(run.directory)
    conductor = open_conductor(run, store, Told())
    kept, moves = checkpoints.load_decisions, iter((6, 8))

    def slow(store, round_):
        # the run has come two rounds further meanwhile
        if (until := next(moves, None)) is not None:
            with monkeypatch.context() as patch:
                patch.setattr(checkpoints, "load_decisions", kept)
                goes_on(conductor, until)
        return kept(store, round_)

    monkeypatch.setattr(checkpoints, "load_decisions", slow)
    assert directory.state_of(run.directory)[2] == "32/40"
    assert Path(directory.export_member(run, store)).name == "model.safetensors"


def test_a_run_that_deletes_faster_than_anybody_reads_says_so(run, monkeypatch) -> None:
    def gone(store, round_):
        raise FileNotFoundError(2, "No such file", "decisions.json")

    monkeypatch.setattr(checkpoints, "load_decisions", gone)
    with pytest.raises(InputError, match="faster than they are read"):
        directory.state_of(run.directory)
