"""A real MLflow server on a SQLite store holds what a run records, also after an outage and a resume."""

import json
import time
from pathlib import Path

import pytest

from shoal.cluster.storage import Store
from shoal.search.load import load_run
from shoal.search.records import directory, tables
from shoal.search.track.again import send_best, track_again
from shoal.search.track.watching import Tracking
from tests.helpers.directories import TOY, written
from tests.helpers.trackers import free_port, mlflow_server

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("flask_cors")


def recorded(run) -> dict[int, list[tuple[int, float]]]:
    """Return member -> its scores by step, of the run's own table."""
    found: dict[int, list[tuple[int, float]]] = {}
    for each in Store(run.directory).read_table("metrics.parquet").to_pylist():
        found.setdefault(each["member"], []).append((each["step"], each["score"]))
    return found


def members(address: str, name: str = "toy"):
    client = mlflow.MlflowClient(address)
    found = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    return client, {int(each.data.tags["shoal.member"]): each for each in found}


def scores(client, run_of_member) -> list[tuple[int, float]]:
    history = client.get_metric_history(run_of_member.info.run_id, "score")
    return sorted((each.step, each.value) for each in history)


def test_a_server_holds_a_run_through_a_time_without_it_and_a_resume(tmp_path: Path) -> None:
    """One test: the server takes ten seconds to start."""
    port = free_port()
    run = written(tmp_path / "run", 5, f"track={{kind: mlflow, uri: 'http://127.0.0.1:{port}'}}")
    store, said = Store(run.directory), []
    with Tracking(run, store, said.append) as tracking:
        tracking.recorded(1)
        while not said:
            time.sleep(0.05)
    assert said[0].startswith("track: mlflow takes nothing") and said[1].startswith("track: the last rounds")
    del said[:]
    (tmp_path / "server").mkdir()
    with mlflow_server(tmp_path / "server", port) as address:
        with Tracking(run, store, said.append) as tracking:
            for part in (2, 3):
                tracking.recorded(part)
        assert said == []
        client, found = members(address)
        assert {member: scores(client, each) for member, each in found.items()} == {
            member: known[:3] for member, known in recorded(run).items()
        }
        with Tracking(run, store, said.append) as tracking:  # from round 1, so rounds 2 and 3 come again
            for part in (2, 3, 4, 5):
                tracking.recorded(part)
        store.write_json(directory.SUMMARY, {"status": "done"})
        directory.export_member(run, store)
        send_best(run, store, said.append)
        assert said == []
        check_whole(run, address, found)
        assert track_again(run, store, anew=True) == [f"mlflow: {address}, experiment toy"]
        client = mlflow.MlflowClient(address)
        assert len(client.search_runs([client.get_experiment_by_name("toy").experiment_id])) == 8


def check_whole(run, address: str, before) -> None:
    client, found = members(address)
    assert {member: each.info.run_id for member, each in found.items()} == {
        member: each.info.run_id for member, each in before.items()
    }
    assert {member: scores(client, each) for member, each in found.items()} == recorded(run)
    events = tables.read_table_rows(Store(run.directory), "lineage.parquet")
    for event in events:
        if event["event"] == "start":
            first = json.loads(event["after"])
            assert found[event["member"]].data.params == {name: str(value) for name, value in first.items()}
        elif event["event"] == "copy":
            said = f"member {event['parent']} at step {event['step']}"
            assert said in found[event["member"]].data.tags["shoal.copies"]
    best = next(each for each in found.values() if each.data.tags.get("shoal.best"))
    names = {each.path for each in client.list_artifacts(best.info.run_id, "best")}
    assert names == {"best/model.safetensors", "best/config.json"}
    assert {each.info.status for each in found.values()} == {"FINISHED"}
    assert "hyperparameters/h0" in best.data.metrics and best.info.run_name.startswith("toy member")


def test_a_server_that_is_not_there_is_no_matter_at_validate() -> None:
    assert load_run(TOY, ["track={kind: mlflow, uri: 'http://127.0.0.1:9'}"]).track[0].kind == "mlflow"
