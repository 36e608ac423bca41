"""What docs/own-model.md tells the reader to write does what it says."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shoal.cluster.storage import Store
from tests.helpers.runs import shoal, write_texts

GUIDE = (Path(__file__).parents[2] / "docs/own-model.md").read_text()
FILES = re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)```", GUIDE, re.DOTALL | re.MULTILINE)
CLASSES = [name for name, _ in FILES if name.endswith(".py")]


def write_files(folder: Path, name: str) -> None:
    """Write the class and the run's file that the guide calls by a name."""
    for file, text in FILES:
        if file.partition(".")[0] == name:
            (folder / file).write_text(text)


def images(rows: int = 2000) -> dict[str, np.ndarray]:
    """Ten blurred shapes under noise."""
    rng = np.random.default_rng(0)
    shapes, labels = rng.normal(size=(10, 28, 28)), rng.integers(0, 10, rows)
    drawn = 0.3 * shapes[labels] + rng.normal(size=(rows, 28, 28))
    return {"images": drawn.astype(np.float32), "labels": labels}


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_of_the_guide_is_under_40_lines(name: str) -> None:
    assert len(dict(FILES)[name].splitlines()) < 40


@pytest.mark.ray
def test_the_classifier_with_data_of_its_own_trains(tmp_path) -> None:
    write_files(tmp_path, "classifier")
    np.savez(tmp_path / "images.npz", **images())
    shoal("run", "classifier.yaml", folder=tmp_path)
    rows = Store(f"{tmp_path}/runs/classifier").read_table("metrics.parquet").to_pylist()
    assert all(row["stacked"] for row in rows)
    assert max(row["score"] for row in rows if row["round"] == 10) > 0.9


def write_groups(folder: Path) -> None:
    """Write the images as two groups of Parquet rows; those of the second are turned."""
    found = images()
    for group, turned in (("plain", 0), ("turned", 1)):
        drawn = np.rot90(found["images"][turned::2], turned, axes=(1, 2)).reshape(1000, -1)
        columns = {"image": drawn.tolist(), "label": found["labels"][turned::2]}
        pq.write_table(pa.table(columns), folder / f"{group}.parquet")


@pytest.mark.ray
def test_the_classifier_that_takes_rows_trains_on_a_mixture_and_a_choice_of_them(tmp_path) -> None:
    write_files(tmp_path, "digits")
    write_groups(tmp_path)
    changes = ["population.members=4"]
    tried = shoal("validate", "--dry-run", "digits.yaml", *changes, folder=tmp_path)
    assert "it trains on as its donor does" in tried and "accuracy_plain" in tried
    said = shoal("run", "digits.yaml", *changes, folder=tmp_path)
    store = Store(f"{tmp_path}/runs/digits")
    rows = store.read_table("metrics.parquet").to_pylist()
    last = [row for row in rows if row["round"] == 10]
    assert max(row["accuracy_turned"] for row in last) > 0.8
    assert all(row["kept"] is not None and row["rows"] == 12800 and not row["tokens"] for row in last)
    assert "test accuracy_plain" in said and "rows/s" in said
    shares = store.read_table("mixing.parquet").to_pylist()
    assert {row["group"] for row in shares} == {"plain", "turned"}
    assert store.read_json("summary.json")["test_measures"].keys() == {"accuracy_plain", "accuracy_turned"}


@pytest.mark.ray
def test_the_class_that_takes_tokens_trains_on_a_mixture_and_a_choice_of_rows(tmp_path) -> None:
    write_files(tmp_path, "bigrams")
    write_texts(tmp_path)
    changes = ["data.groups={letters: letters, digits: digits}", "data.sequence_length=32"]
    changes += ["population.members=4", "training={steps: 60, batch: 8, evaluation_rows: 16}"]
    tried = shoal("validate", "--dry-run", "bigrams.yaml", *changes, folder=tmp_path)
    assert "it trains on as its donor does" in tried and "MiB in a checkpoint" in tried
    said = shoal("run", "bigrams.yaml", *changes, "--baseline", folder=tmp_path)
    rows = Store(f"{tmp_path}/runs/bigrams").read_table("metrics.parquet").to_pylist()
    last = [row for row in rows if row["round"] == 3]
    assert min(row["loss_letters"] + row["loss_digits"] for row in last) < 8.0
    assert all(0 <= row["accuracy_letters"] <= 1 and row["kept"] is not None for row in last)
    assert "test accuracy_letters" in said and "in equal shares" in said and "tokens/s" in said
    report = (tmp_path / "runs/bigrams/report.html").read_text()
    assert "accuracy_digits" in report and "Validation loss by group" in report
