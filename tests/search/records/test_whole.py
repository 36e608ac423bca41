"""Resume goes back to the newest round that is whole, and loses nothing before it has read it."""

import json
from pathlib import Path

import pytest

from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from shoal.search.errors import InputError
from shoal.search.records.lineage import read_lineage
from shoal.search.records.tables import METRICS, read_table_rows
from tests.helpers.directories import Told, content, goes_on, newest, open_conductor, written


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flipped(file: Path) -> None:
    whole = bytearray(file.read_bytes())
    whole[-5] ^= 1
    file.write_bytes(whole)


def other(file: Path) -> None:
    file.write_bytes(b'{"saved": [4, 4, 4, 4]}' if file.suffix == ".json" else b"not what it was")


BREAKS = [cut, empty, flipped, other]


@pytest.mark.parametrize("spoil", BREAKS)
@pytest.mark.parametrize("name", ["member-00001.safetensors", "decisions.json"])
def test_a_broken_newest_round_is_told_of_and_the_one_before_taken(tmp_path, spoil, name: str) -> None:
    run, whole = written(tmp_path / "run", 4), written(tmp_path / "whole", 4)
    spoil(newest(run) / name)
    told = Told()
    conductor = open_conductor(run, Store(run.directory), told)
    assert conductor.round == 3
    (line,) = told.lines
    assert f"round-000004/{name} is broken: " in line and line.endswith("; going on from round 3")
    goes_on(conductor, 4)
    stores = [Store(each.directory) for each in (run, whole)]
    assert len({str(read_lineage(store)) for store in stores}) == 1
    assert len({str([row["score"] for row in read_table_rows(store, METRICS)]) for store in stores}) == 1


@pytest.mark.parametrize("spoil", BREAKS)
@pytest.mark.parametrize("folder", ["metrics.parquet", "lineage.parquet"])
def test_a_table_that_is_broken_at_its_end_costs_the_last_round(tmp_path, spoil, folder: str) -> None:
    run = written(tmp_path / "run", 4, "population.exploit={kind: truncation, fraction: 0.5}")
    (part,) = Path(run.directory).glob(f"{folder}/part-000004.parquet")
    spoil(part)
    told = Told()
    assert open_conductor(run, Store(run.directory), told).round == 3
    assert f"{folder}/part-000004.parquet is broken" in told.lines[0]


def test_where_no_round_is_whole_the_file_is_named_and_all_is_left(tmp_path) -> None:
    run = written(tmp_path / "run", 4)
    for file in Path(run.directory).glob("checkpoints/*/member-00002.safetensors"):
        cut(file)
    before = content(tmp_path / "run")
    for _ in range(2):
        with pytest.raises(
            InputError, match=r"round-000004/member-00002.safetensors is broken.* no other round"
        ):
            open_conductor(run, Store(run.directory), Told())
    assert content(tmp_path / "run") == before


def test_files_that_are_missing_from_all_rounds_are_no_new_beginning(tmp_path) -> None:
    run = written(tmp_path / "run", 4)
    for file in Path(run.directory).glob("checkpoints/*/member-00002.safetensors"):
        file.unlink()
    before = content(tmp_path / "run")
    with pytest.raises(InputError, match=r"round-000003/member-00002.safetensors is missing"):
        open_conductor(run, Store(run.directory), Told())
    assert content(tmp_path / "run") == before


def test_a_run_that_was_killed_in_its_first_round_begins_anew_without_a_word(tmp_path) -> None:
    run, told = written(tmp_path / "run", 1), Told()
    (newest(run) / "member-00003.safetensors").unlink()
    conductor = open_conductor(run, Store(run.directory), told)
    assert conductor.round == 0 and not told.lines and not checkpoints.saved_rounds(conductor.store)


def test_a_run_that_was_killed_before_a_member_was_written_goes_back_without_a_word(tmp_path) -> None:
    run, told = written(tmp_path / "run", 4), Told()
    (newest(run) / "member-00003.safetensors").unlink()
    assert open_conductor(run, Store(run.directory), told).round == 3 and not told.lines


def test_decisions_of_before_there_were_digests_are_read(tmp_path) -> None:
    run = written(tmp_path / "run", 2)
    file = newest(run) / "decisions.json"
    plain = json.loads(file.read_text())
    del plain["digest"]
    file.write_text(json.dumps(plain))
    assert open_conductor(run, Store(run.directory), Told()).round == 2
