"""Rounds of rewriting whose members are adapters of a pretrained model, with a kill between two rounds."""

import json
import signal
from pathlib import Path

import pytest
import yaml

pytest.importorskip("transformers")

from shoal.cluster.storage import Store
from tests.helpers.pretrained import causal_run, tiny_model
from tests.helpers.runs import shoal, start
from tests.search.selection.test_select import write_group

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]  # three starts of Ray
# the first command dies as it asks for the first new texts: round 0 is trained, its rows are not yet made
WRITER = """
import os
import signal
from pathlib import Path


class Writer:
    def rewrite(self, asked):
        mark = Path(__file__).with_name("killed")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [f"{each.action} of {each.text[:10]}" for each in asked]
"""


def test_rounds_of_adapters_score_by_the_last_adapter_and_go_on_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / "writer_of_adapters.py").write_text(WRITER)
    groups = {kind: write_group(tmp_path / kind, kind, 12, seed) for seed, kind in enumerate(("sea", "wood"))}
    values = causal_run(
        str(tmp_path),
        groups=groups,
        data__tokenizer=tiny_model(),
        data__validation=0.2,
        data__test=0.2,
        population={"members": 2, "interval": 3, "exploit": "none"},
        cluster={"broods": 1, "workers_per_brood": 1},
        refine={"made": "writer_of_adapters:Writer", "base": tiny_model(), "rounds": 2, "patience": 2},
    )
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    command = ("refine", str(tmp_path / "run.yaml"))
    process = start(*command, folder=tmp_path)
    said, _ = process.communicate(timeout=1120)
    assert process.returncode == -signal.SIGKILL, said
    first = (tmp_path / "run/round-0/best/adapter_model.safetensors").read_bytes()
    said = shoal(*command, folder=tmp_path)
    assert "refine: ends, since all 2 rounds are done" in said
    # round 0 was trained once, and each round exported an adapter, by which its own rows were scored
    assert (tmp_path / "run/round-0/best/adapter_model.safetensors").read_bytes() == first
    assert (tmp_path / "run/round-1/best/adapter_model.safetensors").read_bytes() != first
    rounds = json.loads((tmp_path / "run/refine.json").read_text())["rounds"]
    assert rounds[1]["rows"] == rounds[0]["rows"] + rounds[0]["actions"]["seed"] and rounds[0]["made"] > 0
    for number in range(2):
        table = Store(str(tmp_path / f"run/round-{number}")).read_table("actions.parquet")
        before, after = (table[name].to_numpy() for name in ("loss_before", "loss_after"))
        assert abs(after - before).mean() > 1e-4  # the adapter is no longer what it began as
        assert after.mean() < before.mean()
