"""Mixtures on an embedded Ray: whole searches of kind `mixture`, and policies that need more than members."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from shoal.cluster.storage import Store
from tests.helpers.runs import scores, shoal, small_run, start, wait_for_round, write_texts

pytestmark = pytest.mark.ray


def mixture_run(folder: Path, directory: Path, **more: Any) -> str:
    """Write the file of a small search over two groups of text."""
    small = {"layers": 1, "heads": 1, "width": 8}
    values = {
        "name": "mixture",
        "kind": "mixture",
        "directory": str(directory),
        "data": {
            "corpus": f"{folder}/corpus",
            "groups": {"letters": f"{folder}/letters", "digits": f"{folder}/digits"},
            "sequence_length": 32,
            "validation": 0.2,
            "test": 0.2,
        },
        "model": small,
        "training": {"steps": 20, "batch": 4, "warmup": 2, "evaluation_rows": 8, "learning_rate": 0.01},
        "swarm": {"runs": 5, "steps": 15, "model": small, "draws": 10, "repeats": 1},
        "cluster": {"broods": 1, "workers_per_brood": 1},
    }
    path = folder / f"{directory.name}.yaml"
    path.write_text(yaml.safe_dump(values | more))
    return str(path)


def proposal_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "proposal.json").read_text())


def test_a_search_ends_with_a_proposal_beside_its_controls(tmp_path) -> None:
    write_texts(tmp_path)
    directory = tmp_path / "run"
    said = shoal("run", mixture_run(tmp_path, directory))
    found = proposal_of(directory)
    names = ["proposal", "stratified", "proportional", "best small run", "best single group", "random"]
    assert list(found["beside"]) == names and found["runs"] == 5 and found["extra_steps"] == 75
    for each in found["beside"].values():
        assert sum(each["mixture"]) == pytest.approx(1) and np.isfinite(each["validation"])
        assert set(each["test"]) == {"letters", "digits"}
    assert (np.array(found["low"]) <= found["high"]).all()
    assert all(name in said for name in names) and "its interval" in said
    # the swarm and the confirming run are populations with reports of their own
    for part, members in (("swarm", 5), ("confirm", 6)):
        assert len({member for _, member, _ in scores(directory / part)}) == members
        assert (directory / part / "report.html").exists()


@pytest.mark.slow
def test_each_small_run_may_be_a_trial_of_its_own(tmp_path) -> None:
    write_texts(tmp_path)
    directory = tmp_path / "run"
    shoal("run", mixture_run(tmp_path, directory, cluster={"broods": 5}))
    rows = Store(str(directory / "swarm")).read_table("metrics.parquet").to_pylist()
    assert {row["brood"]: row["member"] for row in rows} == dict(zip(range(5), range(5), strict=True))
    assert proposal_of(directory)["runs"] == 5


@pytest.mark.slow
@pytest.mark.parametrize("part", ["swarm", "confirm"])
def test_a_killed_search_goes_on_to_the_same_proposal(tmp_path, part: str) -> None:
    write_texts(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    shoal("run", mixture_run(tmp_path, whole))
    process = start("run", mixture_run(tmp_path, killed))
    wait_for_round(killed / part, 2, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=240)
    assert json.loads((killed / "summary.json").read_text())["status"] == "running"
    shoal("resume", str(killed))
    assert proposal_of(killed) == proposal_of(whole)
    for each in ("swarm", "confirm"):
        assert scores(killed / each) == scores(whole / each)
    process = start("resume", str(killed))
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 2 and "is finished" in said


def without_policy(texts: Path, directory: Path) -> list[str]:
    return [change for change in small_run(texts, directory) if not change.startswith("mixing.policy")]


@pytest.mark.slow
def test_doremi_against_the_best_of_a_former_run_resumes_and_is_replayed(tmp_path) -> None:
    texts, former, killed = write_texts(tmp_path), tmp_path / "former", tmp_path / "killed"
    rate = "{learning_rate: {kind: float, low: 0.001, high: 0.03, log: true}}"
    shoal("run", *without_policy(texts, former), "mixing=null", f"hyperparameters={rate}")
    policy = f"mixing={{policy: {{kind: doremi, proxy_share: 0.6}}, reference: {former}/best, floor: 0.05}}"
    process = start("run", *without_policy(texts, killed), policy, f"hyperparameters={rate}")
    wait_for_round(killed, 3, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=240)
    shoal("resume", str(killed))
    rows = Store(str(killed)).read_table("mixing.parquet").to_pylist()
    assert {row["extra_steps"] for row in rows} == {40} and max(row["round"] for row in rows) == 10
    # weights of the loss move in the proxy; what it found is what the last steps are trained at
    assert len({row["proportion"] for row in rows if row["round"] < 6}) > 4
    said = shoal("replay", str(killed))
    assert "have the same weights, bit for bit" in said


@pytest.mark.slow
def test_a_group_is_judged_by_and_never_trained_on(tmp_path) -> None:
    texts, directory = write_texts(tmp_path), tmp_path / "run"
    shoal("run", *small_run(texts, directory), "mixing.unseen=[digits]", "training.steps=16")
    metrics = Store(str(directory)).read_table("metrics.parquet").to_pylist()
    assert all(row["score"] == pytest.approx(-row["loss_digits"], abs=1e-6) for row in metrics)
    rows = Store(str(directory)).read_table("mixing.parquet").to_pylist()
    assert {row["group"] for row in rows} == {"letters"} and {len(row["effects"]) for row in rows} == {1}


@pytest.mark.slow
def test_members_that_mix_span_workers(tmp_path) -> None:
    texts, found = write_texts(tmp_path), {}
    wide = "{broods: 1, workers_per_member: 2, span: ddp, cpus_per_worker: 0.3}"
    for name, cluster in (("alone", "{broods: 1, stack: false}"), ("over", wide)):
        changes = ["population={members: 2, interval: 8, exploit: none}", "training.dropout=0"]
        changes.append(f"cluster={cluster}")
        run = [change for change in small_run(texts, tmp_path / name) if not change.startswith("cluster")]
        shoal("run", *run, *changes)
        rows = Store(str(tmp_path / name)).read_table("mixing.parquet").to_pylist()
        shares = [row["proportion"] for row in rows if row["round"] == 5]
        found[name] = ([score for _, _, score in scores(tmp_path / name)], shares)
    assert found["over"][0] == pytest.approx(found["alone"][0], abs=0.01)
    assert found["over"][1] == pytest.approx(found["alone"][1], abs=0.02)
