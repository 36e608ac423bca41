"""Text out of several fields, rows that are token ids already, and samples of sources and of held-out rows."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shoal.cluster.rows import as_rows
from shoal.cluster.storage import Store
from shoal.search.config.sections import Data
from shoal.search.corpus.build import build_corpus
from shoal.search.corpus.held_out import sampled_rows
from shoal.search.errors import InputError
from shoal.trainables.tokenizer import Bytes

BUILDERS = pytest.mark.parametrize("builder", ["local", "ray"])

pytestmark = pytest.mark.usefixtures("here")


def settings(path, builder: str = "local", **changes) -> Data:
    plain = {
        "corpus": str(path / "corpus"),
        "groups": {"one": str(path / "one.jsonl")},
        "sequence_length": 8,
        "validation": 0.2,
        "test": 0.2,
        "builder": builder,
    }
    return Data(**(plain | changes))


def write(path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def text(given: Data, group: str = "one") -> str:
    """Return all text of a group, split by split, rows in the order of their ids."""
    manifest = build_corpus(given, lambda line: None)
    files = [file for split in manifest.groups[group].splits.values() for file in split.files]
    rows = np.concatenate([as_rows(Store(given.corpus).read_table(file), manifest.row_type) for file in files])
    return Bytes().decode(rows)


@BUILDERS
def test_a_template_makes_one_text_of_several_fields(tmp_path, builder) -> None:
    write(tmp_path / "one.jsonl", [{"q": f"q{n:03d}", "a": n + 100, "x": None} for n in range(60)])
    # rows of 8 tokens hold one text each: q000 / 100 and an end are 9, so a row shifts by one
    found = text(settings(tmp_path, builder, text_field="{q}/{a}", sequence_length=9))
    assert {found[start : start + 8] for start in range(0, len(found), 8)} == {
        f"q{n:03d}/{n + 100}" for n in range(60)
    }


@BUILDERS
def test_a_template_may_be_of_one_group(tmp_path, builder) -> None:
    write(tmp_path / "one.jsonl", [{"q": "what", "a": f"{n:04d}"} for n in range(60)])
    pq.write_table(pa.table({"text": [f"a plain text {n}" for n in range(60)]}), tmp_path / "two.parquet")
    groups = {"one": str(tmp_path / "one.jsonl"), "two": str(tmp_path / "two.parquet")}
    given = settings(tmp_path, builder, groups=groups, text_field={"one": "{q} {a}"})
    assert "what 00" in text(given, "one") and "plain" in text(given, "two")


@pytest.mark.parametrize(
    ("text_field", "said"),
    [
        ("{q} {b}", "60 x no field 'b' (data.text_field); allowed are a, q"),
        ("{question} {a}", "no field 'question' (data.text_field)"),
        ("{q} {none}", "'none' (data.text_field) is null"),
        ("{q} {list}", "'list' (data.text_field) must hold text or a number, got list"),
    ],
)
@BUILDERS
def test_a_template_that_finds_no_text_is_one_line(tmp_path, builder, text_field, said) -> None:
    more = {"none": None} if "none" in text_field else {"list": [1]} if "list" in text_field else {}
    write(tmp_path / "one.jsonl", [{"q": "what", "a": str(n), **more} for n in range(60)])
    with pytest.raises(InputError) as raised:
        build_corpus(settings(tmp_path, builder, text_field=text_field), lambda line: None)
    assert said in str(raised.value) and "\n" not in str(raised.value)


@BUILDERS
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_token_ids_are_taken_as_they_are(tmp_path, builder, form) -> None:
    lists = [[n % 250, *range(7)] for n in range(60)]
    rows = [{"input_ids": ids, "id": n} for n, ids in enumerate(lists)]
    source = tmp_path / f"one.{form}"
    write(source, rows) if form == "jsonl" else pq.write_table(pa.Table.from_pylist(rows), source)
    given = settings(tmp_path, builder, groups={"one": str(source)}, format="tokens")
    manifest = build_corpus(given, lambda line: None)
    assert given.rows == "tokens" and manifest.row_type == np.dtype(("<u2", (8,)))
    files = [file for split in manifest.groups["one"].splits.values() for file in split.files]
    found = np.concatenate([as_rows(Store(given.corpus).read_table(file)) for file in files])
    assert sorted(found.tolist()) == sorted(lists)


@BUILDERS
@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([1, 257], "the token id 257 is not among the 257 of data.tokenizer"),
        ([-1, 2], "the token id -1 is not among the 257"),
        ("text", "must hold a list of token ids"),
        ([[1], [2]], "must hold a list of token ids"),
        ([1.5], "must hold a list of token ids"),
        ([], "empty"),
    ],
)
def test_token_ids_that_the_vocabulary_has_not_are_bad(tmp_path, builder, ids, said) -> None:
    write(tmp_path / "one.jsonl", [{"input_ids": ids}] * 9)
    with pytest.raises(InputError) as raised:
        build_corpus(settings(tmp_path, builder, format="tokens"), lambda line: None)
    assert said in str(raised.value) and "\n" not in str(raised.value)


@BUILDERS
def test_megabytes_sample_a_source_and_do_not_take_its_beginning(tmp_path, builder) -> None:
    write(tmp_path / "one.jsonl", [{"text": f"{n:06d}"} for n in range(1000)])
    given = settings(tmp_path, builder, sequence_length=8, megabytes=0.0018)  # 300 texts of 6 bytes
    found = text(given).replace("\n", "")
    # the texts stand one after another, and rows begin anywhere: look for whole ones
    numbers = [int(found[at : at + 6]) for at in range(len(found) - 6) if f"{found[at : at + 6]}".isdigit()]
    known = {number for number in numbers if number < 1000}
    assert min(known) < 100 and max(known) > 900
    # both halves are there alike
    assert 0.35 < np.mean([number < 500 for number in known]) < 0.65


def test_both_builders_sample_the_same_texts(tmp_path) -> None:
    write(tmp_path / "one.jsonl", [{"q": f"question {n:04d}", "a": str(n)} for n in range(500)])
    found = {}
    for builder in ("local", "ray"):
        given = settings(
            tmp_path,
            builder,
            corpus=str(tmp_path / builder),
            format={"kind": "instruction", "prompt": "q", "answer": "a", "packed": False},
            sequence_length=32,
            megabytes=0.005,
        )
        manifest = build_corpus(given, lambda line: None)
        files = [file for split in manifest.groups["one"].splits.values() for file in split.files]
        rows = [as_rows(Store(given.corpus).read_table(file)) for file in files]
        found[builder] = sorted(Bytes().decode(row) for row in np.concatenate(rows)["tokens"])
    assert found["local"] == found["ray"] and 100 < len(found["local"]) < 200


def test_held_out_rows_are_a_sample_of_the_whole_split_and_the_same_ones_again(tmp_path) -> None:
    write(tmp_path / "one.jsonl", [{"text": f"{n:07d}"} for n in range(3000)])
    given = settings(tmp_path)
    manifest, store = build_corpus(given, lambda line: None), Store(given.corpus)
    (file,) = manifest.groups["one"].splits["validation"].files
    whole = [row.tobytes() for row in as_rows(store.read_table(file))]
    sample = sampled_rows(store, manifest, "one", "validation", 64)
    places = [whole.index(row.tobytes()) for row in sample]
    assert len(set(places)) == 64 and max(places) > 0.8 * len(whole) and min(places) < 0.2 * len(whole)
    again = sampled_rows(store, manifest, "one", "validation", 16)
    assert np.array_equal(again, sample[:16])  # a smaller sample is the beginning of a larger one
    everything = sampled_rows(store, manifest, "one", "validation", 10**6)
    assert sorted(row.tobytes() for row in everything) == sorted(whole)
    others = sampled_rows(store, manifest, "one", "test", 64)
    assert not np.array_equal(others, sample)
