"""A run of kind distill on an embedded Ray: killed, resumed, searched by Ray's tasks, and exported."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="the extra shoal[hf] is not installed")
pytest.importorskip("tokenizers", reason="the extra shoal[hf] is not installed")

from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from shoal.search.distill.export import export_student
from shoal.search.records.directory import open_run
from tests.helpers.distillation import save_teacher, write_run
from tests.helpers.runs import events, scores, shoal, start, wait_for_round

pytestmark = pytest.mark.ray


def write_texts(folder: Path) -> None:
    """Write text of the teacher's words: a few rows more than the run trains on."""
    rng = np.random.default_rng(0)
    for place in range(40):
        words = (f"w{word}" for word in rng.integers(60, size=120))
        (folder / f"{place}.txt").write_text(" ".join(words))


def test_a_killed_run_is_resumed_searched_and_exported(tmp_path) -> None:
    (tmp_path / "teacher").mkdir()
    (tmp_path / "texts").mkdir()
    write_texts(tmp_path / "texts")
    file = write_run(tmp_path, save_teacher(tmp_path / "teacher"))
    changes = [
        f"data={{groups: {{mine: {tmp_path}/texts}}, sequence_length: 12, validation: 0.1, test: 0.1}}",
        f"data.corpus={tmp_path}/corpus",
        "training={steps: 24, warmup: 1, batch: 4, evaluation_rows: 8}",
        "cluster={broods: 1, workers_per_brood: 2}",
        "distill.staged=true",
        "distill.search={objective: parameters, budgets: [0.01]}",
    ]
    directory = tmp_path / "run"
    process = start("run", file, *changes)
    wait_for_round(directory, 3, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=240)
    reached = checkpoints.latest(Store(str(directory)), range(4))
    assert 2 <= reached < 12
    said = shoal("resume", str(directory))
    store = Store(str(directory))
    assert sorted({(round_, member) for round_, member, _ in scores(directory)}) == [
        (round_, member) for round_ in range(1, 13) for member in range(4)
    ]
    copies = [event for event in events(directory) if event.parent is not None]
    assert copies and all(event.member % 2 == event.parent % 2 for event in copies)
    found = store.read_json("students.json")["students"]
    assert store.read_table("subnets.parquet").num_rows == 32
    assert "best" in said and f"--student {found[0]['name']}" in said
    assert any(row.get("budgets") == [0.01] for row in found)
    run, _ = open_run(str(directory))
    folders = [export_student(run, store, row["name"]) for row in found]
    known = [folder for folder in folders if '"bert"' in Path(folder, "config.json").read_text()]
    assert known
    for folder in known:
        model = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
        assert sum(weight.numel() for weight in model.parameters()) > 0
