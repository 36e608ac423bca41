"""A whole run of kind `stages` on an embedded Ray: it goes on where it stopped, and its stages replay."""

import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.runs import ROOT, events, members, same_weights, shoal, write_texts

pytestmark = pytest.mark.ray
TINY = "stages=[{name: first}, {name: last, change: {model: {layers: 2, heads: 4, width: 32}}, noise: 0.01}]"


def small(folder: Path) -> list[str]:
    """Return the arguments of a tiny run of the example."""
    return [
        str(ROOT / "examples/stages.yaml"),
        f"directory={folder}/run",
        f"data.corpus={folder}/corpus",
        f"data.groups={{letters: '{folder}/letters', digits: '{folder}/digits'}}",
        "data.sequence_length=32",
        "data.validation=0.2",
        "data.test=0.2",
        "model={layers: 1, heads: 2, width: 16}",
        "training={steps: 8, batch: 4, warmup: 2, evaluation_rows: 8}",
        "population={members: 2, interval: 4}",
        "cluster={broods: 1, workers_per_brood: 1, stack: false}",
        TINY,
    ]


@pytest.mark.slow
def test_stages_go_on_where_they_stopped_and_replay(tmp_path) -> None:
    write_texts(tmp_path)
    said = shoal("run", *small(tmp_path))
    place = tmp_path / "run"
    told = json.loads((place / "summary.json").read_text())
    assert told["status"] == "done" and list(told["stages"]) == ["first", "last"]
    assert told["member_steps"] == 32 and "last" in said
    assert "grown: width by 2, layers by 2" in (place / "report.html").read_text()
    origin = json.loads(events(place / "last")[0].origin)
    assert origin["map"] == "grown: width by 2, layers by 2 (zero), 3 slots kept"
    before = members(place / "last", 2)
    # as if it had been stopped between two stages
    shutil.rmtree(place / "last")
    (place / "summary.json").write_text(json.dumps({"status": "interrupted", "stages": {}}))
    shoal("resume", str(place))
    assert same_weights(before, members(place / "last", 2))
    assert "have the same weights, bit for bit" in shoal("replay", str(place / "last"))


def test_the_example_is_one() -> None:
    said = shoal("plan", str(ROOT / "examples/stages.yaml"))
    assert "stages-first" in said and "stages-small" in said and "stages-last" in said
