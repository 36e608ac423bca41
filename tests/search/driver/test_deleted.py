"""What is left of a run whose directory was deleted while it went on: nothing."""

import os
import shutil

from shoal.cluster.lease import take
from shoal.cluster.storage import Store
from shoal.search.driver.population import RAY, clear_away_pieces


def test_what_tune_has_made_anew_is_taken_away(tmp_path) -> None:
    Store(f"{tmp_path}/run").write("run.yaml", "name: x")
    store = take(f"{tmp_path}/run")
    clear_away_pieces(store)  # the run still has its directory
    assert sorted(os.listdir(tmp_path / "run")) == ["lease.json", "run.yaml"]
    shutil.rmtree(tmp_path / "run")
    clear_away_pieces(store)  # Tune has written nothing
    assert os.listdir(tmp_path) == []
    Store(store.uri).write(f"{RAY}/tune/experiment_state.json", "{}")
    clear_away_pieces(store)
    assert os.listdir(tmp_path) == []


def test_what_a_deletion_has_stumbled_over_is_taken_away(tmp_path) -> None:
    Store(f"{tmp_path}/run").write("run.yaml", "name: x")
    store = take(f"{tmp_path}/run")
    store.write("checkpoints/round-000003/member-00000.safetensors", b"1")
    (tmp_path / "run/lease.json").unlink()
    clear_away_pieces(store)  # a run without a lease is still one
    assert (tmp_path / "run/checkpoints").exists()
    (tmp_path / "run/run.yaml").unlink()
    clear_away_pieces(store)
    assert os.listdir(tmp_path) == []


def test_what_somebody_has_put_there_stays(tmp_path) -> None:
    Store(f"{tmp_path}/run").write("run.yaml", "name: x")
    store = take(f"{tmp_path}/run")
    shutil.rmtree(tmp_path / "run")
    for name in (f"{RAY}/tune/experiment_state.json", "notes.txt"):
        Store(store.uri).write(name, "mine")
    clear_away_pieces(store)
    assert sorted(os.listdir(tmp_path / "run")) == ["notes.txt", RAY]
