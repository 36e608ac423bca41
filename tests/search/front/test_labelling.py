"""`shoal label`: what is written, what is said, and what a table must have."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shoal.policies.bag_labels import BagLabels
from shoal.search.cli import run_command_line
from shoal.search.errors import InputError
from shoal.search.front.labelling import BagColumns, label_bags


def rows(bags: int = 10, size: int = 16, held_out: int = 5) -> dict[str, list]:
    """Return the columns of rows in bags, whose label is their first number's sign, and of some in none."""
    rng = np.random.default_rng(0)
    label = np.concatenate([np.arange(size) < 1 + number % (size - 1) for number in range(bags)]).astype(int)
    label = np.concatenate([label, np.arange(held_out) % 2])
    x = rng.normal(size=(len(label), 3)) + [4, 0, 0] * (2 * label[:, None] - 1)
    bag = [f"town {number}" for number in np.repeat(np.arange(bags), size)] + [None] * held_out
    share = [(1 + number % (size - 1)) / size for number in np.repeat(np.arange(bags), size)]
    return {
        "x": x.tolist(),
        "bag": bag,
        "shares": [[1 - each, each] for each in share] + [None] * held_out,
        "label": [None] * (bags * size) + label[bags * size :].tolist(),
        "split": ["train"] * (bags * size) + ["validation"] * held_out,
    }


def written(folder, columns: dict[str, list]) -> str:
    pq.write_table(pa.table(columns), folder / "bags.parquet")
    return str(folder / "bags.parquet")


def test_rows_get_the_labels_of_their_neighbours_that_fit_the_shares(tmp_path, monkeypatch, capsys) -> None:
    file, target = written(tmp_path, rows()), str(tmp_path / "new" / "labelled.parquet")
    monkeypatch.setattr("sys.argv", ["shoal", "label", file, "--to", target, "--edge-weight", "1.5"])
    with pytest.raises(SystemExit) as ended:
        run_command_line()
    said = capsys.readouterr().out
    assert not ended.value.code and "160 rows of 10 bags are labelled" in said and "note" not in said
    assert "5 rows of no bag kept their label" in said
    found = pq.read_table(target).to_pydict()
    right = (np.array(found["x"])[:, 0] > 0).astype(int)
    assert np.mean(right[:160] == found["label"][:160]) > 0.97
    assert found["label"][160:] == found["chance"][160:] == [0, 1, 0, 1, 0]
    assert sum(found["chance"][16:32]) == pytest.approx(2.0, abs=0.1)
    assert found["split"][-1] == "validation"
    assert found["bag_number"] == [*np.repeat(range(10), 16), *[-1] * 5]
    assert found["bag_shares"][16] == [0.875, 0.125] and found["bag_shares"][-2:] == [[0.0, 1.0], [1.0, 0.0]]


def test_shares_of_label_1_alone_are_taken_and_inputs_may_be_named(tmp_path) -> None:
    columns = rows(held_out=0)
    both = label_bags(written(tmp_path, columns), str(tmp_path / "a.parquet"), BagColumns(), BagLabels())
    columns |= {
        "shares": [each[1] for each in columns["shares"]],
        "noise": list(range(160)),
        "label": [None] * 160,
    }
    file = written(tmp_path, columns)
    one = label_bags(file, str(tmp_path / "b.parquet"), BagColumns(inputs=("x",)), BagLabels())
    assert one[0].replace("b.parquet", "a.parquet") == both[0]
    first, other = (pq.read_table(tmp_path / f"{name}.parquet") for name in "ab")
    assert first["chance"].equals(other["chance"])


def test_chances_that_do_not_keep_the_counts_are_told(tmp_path) -> None:
    columns = rows(held_out=0)
    # town 0 has one row of label 1 by its share, and eight by its neighbours
    columns["x"][:16] = columns["x"][144:160]
    made = BagLabels(bag_weight=0.1, edge_weight=10.0)
    said = label_bags(written(tmp_path, columns), str(tmp_path / "c.parquet"), BagColumns(), made)
    assert len(said) == 2 and "the chances are not sure: those of bag town" in said[1]


@pytest.mark.parametrize(
    ("changes", "columns", "said"),
    [
        ({"shares": [[0.5, 0.1]] * 165}, BagColumns(), "the two shares of a bag must sum to 1"),
        ({"label": [None] * 160 + ["a"] * 5}, BagColumns(), "must be 0 or 1"),
        ({}, BagColumns(bag="bags"), "column bags: is not in the table; did you mean `bag`"),
        ({"bag": [None] * 165}, BagColumns(), "column bag: must name the bags of some rows"),
        (
            {"shares": [0.1 * (i % 3) for i in range(165)]},
            BagColumns(),
            "all rows of a bag must have one share",
        ),
        ({"shares": [2.0] * 165}, BagColumns(), "a share must be from 0 to 1, but one is 2"),
        ({"shares": [[0.2, 0.3, 0.5]] * 165}, BagColumns(), "two labels, but it has shares of 3; train with"),
        ({"shares": ["half"] * 165}, BagColumns(), "column shares: must hold numbers, got string"),
        ({"label": [0] * 165}, BagColumns(), "must be null for rows in bags, but 160 have a label"),
        ({"label": [None] * 165}, BagColumns(), "rows of no bag need a label, but some have none"),
        ({}, BagColumns(label="found", inputs=("x",)), "rows of no bag need a label, but it is not there"),
        ({"label": [None] * 160 + [4] * 5}, BagColumns(), "must be 0 or 1"),
        ({}, BagColumns(inputs=("split",)), "column split: must hold numbers"),
        ({"x": [[1.0]] + [[1.0, 2.0]] * 164}, BagColumns(), "column x: must have as many numbers in each row"),
        ({"x": [float("nan")] * 165}, BagColumns(), "must be finite"),
        ({"x": ["a"] * 165}, BagColumns(), "--input: must name a column of numbers"),
    ],
)
def test_tables_that_lack_something_are_refused_in_one_line(tmp_path, changes, columns, said) -> None:
    file = written(tmp_path, rows() | changes)
    with pytest.raises(InputError, match=said) as error:
        label_bags(file, str(tmp_path / "d.parquet"), columns, BagLabels())
    assert "\n" not in str(error.value) and not (tmp_path / "d.parquet").exists()


def test_a_file_that_is_no_parquet_and_a_weight_below_0_are_refused(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "bags.csv").write_text("x,bag\n1,2\n")
    for more, said in (
        ([], "must be a Parquet file"),
        (["--bag-weight", "-1"], "--bag-weight must be at least 0"),
    ):
        monkeypatch.setattr(
            "sys.argv", ["shoal", "label", str(tmp_path / "bags.csv"), "--to", "x.parquet", *more]
        )
        with pytest.raises(SystemExit) as ended:
            run_command_line()
        assert ended.value.code == 2 and said in capsys.readouterr().err
