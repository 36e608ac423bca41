"""Offline runs of W&B hold what a run records; a resumed run adds to them."""

import json
from pathlib import Path

import pytest

from shoal.cluster.storage import Store
from shoal.search.records import directory, tables
from shoal.search.track.again import send_best
from shoal.search.track.watching import Tracking
from tests.helpers.directories import written
from tests.helpers.trackers import wandb_records

wandb = pytest.importorskip("wandb")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    yield written(tmp_path / "run", 5, "track=wandb")
    wandb.teardown()  # it reads the environment once


def test_without_a_key_nothing_is_asked_and_one_line_is_said(run, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    said: list[str] = []
    with Tracking(run, Store(run.directory), said.append) as tracking:
        tracking.recorded(1)
    assert said[0] == "track: wandb takes nothing: no key is known; set WANDB_API_KEY, or WANDB_MODE=offline"
    assert "shoal track" in said[1]


def records(run, member: int) -> list:
    """Return all records of a member, of its offline runs in order."""
    key = Store(run.directory).read_json("track.json")["key"]
    # a second run in the same second has a number behind its name
    files = Path(run.directory, "wandb").glob(f"offline-run-*-{key}-{member}*/*.wandb")
    files = sorted(files, key=lambda file: file.parent.name)
    return [each for file in files for each in wandb_records(file)]


def history(run, member: int) -> list[dict[str, float]]:
    lines = [each.history.item for each in records(run, member) if each.HasField("history")]
    return [{(each.key or each.nested_key[0]): json.loads(each.value_json) for each in line} for line in lines]


def test_members_are_runs_of_one_group_and_a_resumed_run_adds_to_them(run) -> None:
    store, said = Store(run.directory), []
    for parts in ((1, 2, 3), (2, 3, 4, 5)):
        with Tracking(run, store, said.append) as tracking:
            for part in parts:
                tracking.recorded(part)
    store.write_json(directory.SUMMARY, {"status": "done"})
    directory.export_member(run, store)
    send_best(run, store, said.append)
    assert said == []
    table = store.read_table("metrics.parquet").to_pylist()
    for member in range(4):
        told = [(line["step"], line["score"]) for line in history(run, member)]
        assert told == [(each["step"], each["score"]) for each in table if each["member"] == member]
    begun = [each.run for each in records(run, 2) if each.HasField("run")]
    assert {each.run_group for each in begun} == {f"toy-{begun[0].run_id.partition('-')[0]}"}
    assert begun[0].project == "toy" and begun[0].display_name == "member-00002"
    copy = next(each for each in tables.read_table_rows(store, "lineage.parquet") if each["event"] == "copy")
    told = [each for each in records(run, copy["member"]) if each.HasField("run")]
    assert any(f"from-{copy['parent']}" in each.run.tags for each in told)
    artifacts = [
        each.artifact for member in range(4) for each in records(run, member) if each.HasField("artifact")
    ]
    assert [each.type for each in artifacts] == ["model"]
    assert {entry.path for entry in artifacts[0].manifest.contents} == {"config.json", "model.safetensors"}
