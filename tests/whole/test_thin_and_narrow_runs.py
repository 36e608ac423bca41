"""Searched densities and bits in a whole run on an embedded Ray: copies, a resume and a replay, bit for bit."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from shoal.cluster.storage import Store
from tests.helpers.runs import events, members, same_weights, scores, shoal, start, wait_for_round

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RUN = {
    "name": "thin",
    "seed": 3,
    "model": {"layers": 1, "heads": 2, "width": 16},
    "training": {"steps": 60, "batch": 8, "warmup": 2, "evaluation_rows": 4, "rounding": "stochastic"},
    "hyperparameters": {
        "density": {"kind": "float", "low": 0.2, "high": 1.0, "log": True},
        "bits": {"kind": "ordered", "values": [4, 6, 8, 32]},
    },
    "price": 0.5,
    "population": {"members": 4, "interval": 6, "exploit": {"kind": "truncation", "fraction": 0.25}},
    "cluster": {"broods": 1, "workers_per_brood": 1, "threads_per_worker": 1, "stack": False},
}


def test_densities_and_bits_are_copied_resumed_and_replayed_bit_for_bit(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    rng = np.random.default_rng(0)
    for place in range(40):
        (texts / f"{place}.txt").write_text("".join(rng.choice(list("abcde "), 400)))
    data = {"corpus": f"{tmp_path}/corpus", "groups": {"text": str(texts)}, "sequence_length": 32}
    path, whole, killed = tmp_path / "run.yaml", tmp_path / "whole", tmp_path / "killed"
    path.write_text(yaml.safe_dump(RUN | {"data": data}))
    said = shoal("run", str(path), f"directory={whole}")
    assert "emulated in float32" in said and "minus validation loss, less its price" in said
    copies = [event for event in events(whole) if event.event == "copy"]
    assert any(copy.before["density"] != copy.after["density"] for copy in copies)
    rows = Store(str(whole)).read_table("metrics.parquet").to_pylist()
    assert all(0 < row["cost"] <= 1 and row["float32_score"] < 0 for row in rows)
    priced = [row["score"] + 0.5 * row["cost"] + row["loss_text"] for row in rows]
    assert max(map(abs, priced)) < 1e-6, "score = -loss - price * cost"
    exported = load_file(whole / "best/model.safetensors")
    assert not any("mask" in name for name in exported)
    assert (exported["blocks.0.rise.weight"] == 0).any(), "what is pruned is 0 in the export"
    assert "Validation loss over cost" in (whole / "report.html").read_text()
    assert "have the same weights, bit for bit" in shoal("replay", str(whole))
    assert ends_alike(path, whole, killed)


def ends_alike(path: Path, whole: Path, killed: Path) -> bool:
    """Kill a run in its third round, resume it, and say whether it ends as the whole one did."""
    process = start("run", str(path), f"directory={killed}")
    wait_for_round(killed, 3, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=240)
    shoal("resume", str(killed))
    return scores(killed) == scores(whole) and same_weights(members(killed, 4), members(whole, 4))


def test_ranks_are_copied_resumed_and_replayed_bit_for_bit(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tests.helpers.pretrained import causal_run

    (tmp_path / "texts").mkdir()
    for place in range(40):
        (tmp_path / f"texts/{place}.txt").write_text(f"the text {place} of several words. " * 20)
    values = causal_run(
        str(tmp_path),
        groups={"text": str(tmp_path / "texts")},
        price=0.05,
        training={"steps": 20, "batch": 4, "warmup": 2, "evaluation_rows": 4},
        cluster={"broods": 1, "workers_per_brood": 1, "threads_per_worker": 1, "stack": False},
    )
    path, whole, killed = tmp_path / "run.yaml", tmp_path / "whole", tmp_path / "killed"
    path.write_text(yaml.safe_dump(values))
    shoal("run", str(path), f"directory={whole}")
    copies = [event for event in events(whole) if event.event == "copy"]
    assert any(copy.before["rank"] != copy.after["rank"] for copy in copies)
    rows = Store(str(whole)).read_table("metrics.parquet").to_pylist()
    assert {row["cost"] for row in rows} <= {0.25, 0.5, 0.75, 1.0}
    assert "have the same weights, bit for bit" in shoal("replay", str(whole))
    assert ends_alike(path, whole, killed)
