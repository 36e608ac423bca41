"""A whole run of a pretrained model on an embedded Ray: ranked by answers, one checkpoint kept, exported."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

pytest.importorskip("transformers")

from shoal.cluster.storage import Store
from shoal.search.records.tables import METRICS
from tests.helpers.pretrained import causal_run, tiny_model
from tests.helpers.runs import events, shoal

pytestmark = pytest.mark.ray


def test_adapters_are_ranked_by_what_they_answer(tmp_path: Path) -> None:
    shutil.copytree(tiny_model(), tmp_path / "model")
    groups = {}
    for group in ("one", "two"):
        rows = ({"q": f"{group} {number}", "a": "abc"[number % 3] * 3} for number in range(80))
        (tmp_path / f"{group}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        groups[group] = str(tmp_path / f"{group}.jsonl")
    values = causal_run(
        str(tmp_path),
        groups=groups,
        model__path=f"file://{tmp_path}/model",
        data__format={"kind": "instruction", "prompt": "q", "answer": "a"},
        data__validation=0.2,
        data__test=0.2,
        score={"kind": "choice", "choices": ["aaa", "bbb", "ccc"], "likelihood": "mean", "every": 2},
        mixing={"policy": "random"},
        training__steps=12,
        training__evaluation_rows=8,
        checkpoint={"keep": 1},
        cluster={"broods": 1, "workers_per_brood": 1},
    )
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    said = shoal("run", str(tmp_path / "run.yaml"), HOME=str(tmp_path))
    last = next(line for line in said.splitlines() if line.startswith("tiny: best member"))
    assert " right choices, less their price " in last and "test right choices" in last
    found = json.loads((tmp_path / "run/summary.json").read_text())
    assert (found["ranked_by"], found["better"]) == ("right choices, less their price", "higher")
    assert -0.01 <= found["best_score"] <= 1 and -0.01 <= found["test_score"] <= 1
    assert set(found["test_measures"]) == {"right_one", "right_two"}
    rows = Store(str(tmp_path / "run")).read_table(METRICS).to_pylist()
    assert {(row["round"], row["scored"]) for row in rows} == {(each, each % 2 == 0) for each in range(1, 7)}
    assert {row["cost"] for row in rows} <= {rank / 4 for rank in range(1, 5)}
    copies = [event for event in events(tmp_path / "run") if event.event == "copy"]
    assert copies and {event.round for event in copies} <= {2, 4}
    assert any(row["exploit_seconds"] for row in rows) and any(row["checkpoint_seconds"] for row in rows)
    left = [path.name for path in (tmp_path / "run/checkpoints").iterdir() if any(path.iterdir())]
    assert left == ["round-000006"]
    report = (tmp_path / "run/report.html").read_text()
    assert "Right choices over cost" in report and "Scored at every 2 intervals" in report
    assert (tmp_path / "run/best/adapter_model.safetensors").exists()


def test_adapters_search_how_much_is_hidden_from_them(tmp_path: Path) -> None:
    rows = ({"q": f"{number}", "a": "abc"[number % 3] * 5} for number in range(60))
    (tmp_path / "one.jsonl").write_text("\n".join(map(json.dumps, rows)))
    values = causal_run(
        str(tmp_path),
        groups={"one": str(tmp_path / "one.jsonl")},
        objective=[{"kind": "masked"}],
        hyperparameters={"objective": {"share": {"kind": "float", "low": 0.05, "high": 0.6}}},
        data__format={"kind": "instruction", "prompt": "q", "answer": "a"},
        data__validation=0.2,
        data__test=0.2,
        training__learning_rate=0.01,
        cluster={"broods": 1, "workers_per_brood": 1},
    )
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    said = shoal("run", str(tmp_path / "run.yaml"))
    assert "tiny: best member" in said
    known = events(tmp_path / "run")
    assert {event.event for event in known} >= {"start", "copy"}
    shares = {event.after["objective"]["share"] for event in known}
    assert len(shares) > 4 and all(0.05 <= share <= 0.6 for share in shares)
    told = json.loads((tmp_path / "run/best/shoal.json").read_text())
    assert told["objective"][0]["kind"] == "masked"
