"""Rows of named columns: what each kind takes, where they come from, and how they are split."""

import io
import json
import tarfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shoal.cluster.rows import as_rows, by_field
from shoal.cluster.storage import Store
from shoal.search.checks import rows
from shoal.search.config.run import Run
from shoal.search.config.sections import Data
from shoal.search.corpus.build import build_corpus, load_corpus
from shoal.search.corpus.columns import columns_pick
from shoal.search.corpus.held_out import sampled_rows
from shoal.search.corpus.quarantine import Bad
from shoal.search.errors import InputError

COLUMNS = {"x": {"kind": "tensor", "shape": [2, 2]}, "label": {"kind": "class"}}
FORMS = ("parquet", "arrow", "jsonl", "tar")


def records(count: int, shift: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "x": [float(number + shift), 1.0, 2.0, 3.0],
            "label": number % 10,
            "part": ("train", "dev", "test")[number % 3],
        }
        for number in range(count)
    ]


def write(path, form: str, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    if form == "parquet":
        pq.write_table(table, path)
    elif form == "arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with tarfile.open(path, "w") as archive:
            for number, row in enumerate(rows):
                x = io.BytesIO()
                np.save(x, np.array(row["x"], np.float32).reshape(2, 2))
                parts = {"x": x.getvalue(), "label": str(row["label"]).encode(), "part": row["part"].encode()}
                for name, content in parts.items():
                    info = tarfile.TarInfo(f"{number:05d}.{name}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))


def settings(path, **changes) -> Data:
    plain = {
        "corpus": str(path / "corpus"),
        "groups": {"even": str(path / "even"), "odd": str(path / "odd")},
        "columns": COLUMNS,
        "validation": 0.2,
        "test": 0.2,
    }
    return Data(**(plain | changes))


def all_rows(given: Data, group: str, split: str) -> dict[str, np.ndarray]:
    manifest = load_corpus(given)
    tables = [Store(given.corpus).read_table(file) for file in manifest.groups[group].splits[split].files]
    assert all((np.diff(table["row_id"].to_numpy()) > 0).all() for table in tables)
    return by_field(np.concatenate([as_rows(table, manifest.row_type) for table in tables]))


@pytest.mark.parametrize("builder", ["local", "ray"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_and_builder_gives_the_same_rows(tmp_path, here, form, builder) -> None:
    for group, shift in (("even", 0), ("odd", 1000)):
        write(tmp_path / group / f"a.{form}", form, records(60, shift))
    given = settings(tmp_path, builder=builder)
    manifest = build_corpus(given, lambda line: None)
    assert manifest.fields == [["x", "<f4", [2, 2]], ["label", "<i8", []]]
    found = [all_rows(given, "odd", split) for split in ("train", "validation", "test")]
    x = np.concatenate([each["x"] for each in found])
    labels = np.concatenate([each["label"] for each in found])
    assert sorted(x[:, 0, 0].tolist()) == [float(number) for number in range(1000, 1060)]
    assert (x[:, 0, 1] == 1).all() and (x[:, 1, 1] == 3).all()
    assert labels.tolist() == [int(value - 1000) % 10 for value in x[:, 0, 0]]
    held_out = sampled_rows(Store(given.corpus), manifest, "odd", "test", 4)
    assert held_out["x"].shape == (4, 2, 2) and held_out["label"].dtype == np.int64


def test_a_column_may_name_the_split(tmp_path) -> None:
    for group in ("even", "odd"):
        write(tmp_path / group / "a.jsonl", "jsonl", records(60, 0 if group == "even" else 1000))
    given = settings(tmp_path, split_field="part")
    manifest = build_corpus(given, lambda line: None)
    assert {split: value.rows for split, value in manifest.groups["even"].splits.items()} == dict.fromkeys(
        ("train", "validation", "test"), 20
    )
    assert all(int(value) % 3 == 1 for value in all_rows(given, "even", "validation")["x"][:, 0, 0])


def test_columns_are_found_in_a_schema_that_leaves_no_doubt(tmp_path) -> None:
    table = pa.table(
        {
            "x": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(120, dtype=np.float32)), 2),
            "label": pa.array(range(60), pa.int32()),
            "good": pa.array([True] * 60),
        }
    )
    for group in ("even", "odd"):
        (tmp_path / group).mkdir()
        shift = table.set_column(
            1, "label", pa.array(range(60 * (group == "odd"), 60 + 60 * (group == "odd")), pa.int32())
        )
        pq.write_table(shift, tmp_path / group / "a.parquet")
    given = settings(tmp_path, columns={}, rows="columns")
    manifest = build_corpus(given, lambda line: None)
    assert manifest.fields == [["x", "<f4", [2]], ["label", "<i4", []], ["good", "|b1", []]]
    assert load_corpus(given) == manifest


def test_images_are_decoded_when_the_corpus_is_built(tmp_path) -> None:
    image = pytest.importorskip("PIL.Image")
    rows = []
    for number in range(60):
        content = io.BytesIO()
        image.fromarray(np.full((4, 6, 3), number, np.uint8)).save(content, format="PNG")
        rows.append(
            {"picture": {"bytes": content.getvalue(), "path": None}, "label": ("cat", "dog")[number % 2]}
        )
    rows.append({"picture": {"bytes": b"no image", "path": None}, "label": "cat"})
    for group in ("even", "odd"):
        (tmp_path / group).mkdir()
        pq.write_table(
            pa.Table.from_pylist(rows[:30] if group == "even" else rows[30:]), tmp_path / group / "a.parquet"
        )
    columns = {
        "image": {"kind": "image", "size": [2, 3], "field": "picture"},
        "label": {"kind": "class", "names": ["cat", "dog"]},
    }
    given = settings(tmp_path, columns=columns)
    manifest = build_corpus(given, lambda line: None)
    assert (
        manifest.groups["odd"].skipped == 1
        and "cannot be decoded as an image" in manifest.groups["odd"].reasons
    )
    found = all_rows(given, "even", "train")
    assert found["image"].shape[1:] == (2, 3, 3) and found["image"].dtype == np.uint8
    assert found["label"].tolist() == [int(value) % 2 for value in found["image"][:, 0, 0, 0]]


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ({"kind": "number"}, 1, 1.0),
        ({"kind": "number", "type": "int8"}, 127, 127),
        ({"kind": "number", "type": "int8"}, 128, "must be whole numbers that int8 can hold"),
        ({"kind": "number", "type": "int32"}, 1.5, "must be whole numbers that int32 can hold"),
        ({"kind": "number", "type": "int32"}, float("nan"), "must be whole numbers"),
        ({"kind": "number"}, 1e300, "must be numbers that float32 can hold"),
        ({"kind": "number"}, float("inf"), float("inf")),
        (
            {"kind": "tensor", "shape": [2], "type": "float16"},
            [1, 7e4],
            "must be numbers that float16 can hold",
        ),
        ({"kind": "class", "names": [0, 1]}, 1.0, 1),
        ({"kind": "class", "names": [0, 1]}, 0.5, "no such label '0.5'"),
        ({"kind": "class", "names": [True, False]}, "yes", "in YAML such a word is true or false"),
        ({"kind": "number"}, "3", "must be a number, got str"),
        ({"kind": "number"}, None, "must be a number, got NoneType"),
        ({"kind": "number"}, b" 3.5\n", 3.5),
        ({"kind": "number", "type": "bool"}, True, True),
        ({"kind": "class"}, 3, 3),
        ({"kind": "class"}, -1, "a label must be at least 0, got -1"),
        ({"kind": "class", "names": ["cat", "dog"]}, "dog", 1),
        ({"kind": "class", "names": ["cat", "dog"]}, "cats", "no such label 'cats'; did you mean `cat`?"),
        ({"kind": "tensor", "shape": [2, 2], "type": "uint8"}, [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ({"kind": "tensor", "shape": [2, 2], "type": "uint8"}, [1, 2, 3, 4], [[1, 2], [3, 4]]),
        ({"kind": "tensor", "shape": [2, 2]}, [1, 2, 3], "must have the shape [2, 2], got [3]"),
        ({"kind": "tensor", "shape": [2]}, ["a", "b"], "must hold numbers"),
        ({"kind": "tensor", "shape": [2]}, [[1], [2, 3]], "inhomogeneous"),
        ({"kind": "string", "length": 4}, "word", "word"),
        ({"kind": "string", "length": 4}, "words", "a text has at most 4 characters (length), got 5"),
        ({"kind": "string"}, 3, "must be a text, got int"),
    ],
)
def test_what_a_column_takes(column, value, expected) -> None:
    made = Data(columns={"value": column}, groups={"a": "a"}).columns
    pick = columns_pick(made, None)
    found = pick.of({"value": value}, "line", b"")
    if isinstance(found, Bad):
        assert isinstance(expected, str) and expected in found.reason
        return
    kind, shape = made["value"].build().row_field()
    assert np.array_equal(np.frombuffer(found, np.dtype((kind, shape)) if shape else kind)[0], expected)


@pytest.mark.parametrize(
    ("changes", "form", "said"),
    [
        ({"columns": {}, "rows": "columns"}, "jsonl", "has no types, as Parquet and Arrow have"),
        (
            {"columns": {}, "rows": "columns"},
            "parquet",
            "x (list<element: double>), part (string) may be several things",
        ),
        ({"columns": {"y": {"kind": "number"}}}, "jsonl", "no field 'y' (data.columns)"),
        (
            {"columns": {"lable": {"kind": "class"}}},
            "parquet",
            "no column 'lable' (data.columns); did you mean `label`?",
        ),
        ({"split_field": "label"}, "jsonl", "'label' (data.split_field) must name a split"),
        ({"columns": {"x": {"kind": "number"}}}, "jsonl", "data.columns.x: must be a number, got list"),
    ],
)
def test_what_is_wrong_with_columns_is_one_line(tmp_path, changes, form, said) -> None:
    for group in ("even", "odd"):
        write(tmp_path / group / f"a.{form}", form, records(60, 0 if group == "even" else 1000))
    with pytest.raises(InputError) as raised:
        build_corpus(settings(tmp_path, **changes), lambda line: None)
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_records_that_do_not_fit_are_put_aside(tmp_path) -> None:
    rows = [*records(60), {"x": [1.0], "label": 1, "part": "train"}]
    for group in ("even", "odd"):
        write(tmp_path / group / "a.jsonl", "jsonl", rows if group == "even" else records(60, 1000))
    given = settings(tmp_path)
    manifest = build_corpus(given, lambda line: None)
    group = manifest.groups["even"]
    assert group.skipped == 1 and "data.columns.x: must have the shape [2, 2], got [1]" in group.reasons
    (kept,) = Store(given.corpus).read_table(group.quarantine).to_pylist()
    assert kept["excerpt"] == b"[1.0]"


def test_images_without_their_package_are_one_line_at_validate(tmp_path, monkeypatch) -> None:
    run = Run(name="x", data={"groups": {"a": "a"}, "columns": {"p": {"kind": "image", "size": [2, 2]}}})
    monkeypatch.setattr(rows, "find_spec", lambda name: None)
    assert (
        rows.check_row_keys(run)
        == "data.columns.p: images need the package Pillow (pip install 'shoal[images]')"
    )
