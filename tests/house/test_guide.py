"""What docs/own-model.md tells the reader to write does what it says."""

import re
from pathlib import Path

import numpy as np
import pytest

from shoal.cluster.storage import Store
from tests.helpers.runs import shoal

GUIDE = (Path(__file__).parents[2] / "docs/own-model.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    assert found is not None
    return found[1]


def images(rows: int = 2000) -> dict[str, np.ndarray]:
    """Ten blurred shapes under noise."""
    rng = np.random.default_rng(0)
    shapes, labels = rng.normal(size=(10, 28, 28)), rng.integers(0, 10, rows)
    drawn = 0.3 * shapes[labels] + rng.normal(size=(rows, 28, 28))
    return {"images": drawn.astype(np.float32), "labels": labels}


def test_the_classifier_of_the_guide_is_under_40_lines() -> None:
    assert len(block("python").splitlines()) < 40


@pytest.mark.ray
def test_the_classifier_of_the_guide_trains(tmp_path) -> None:
    (tmp_path / "classifier.py").write_text(block("python"))
    (tmp_path / "classifier.yaml").write_text(block("yaml"))
    np.savez(tmp_path / "images.npz", **images())
    shoal("run", "classifier.yaml", folder=tmp_path)
    rows = Store(f"{tmp_path}/runs/classifier").read_table("metrics.parquet").to_pylist()
    assert all(row["stacked"] for row in rows)
    assert max(row["score"] for row in rows if row["round"] == 10) > 0.9
