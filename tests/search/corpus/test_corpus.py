import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shoal.cluster.storage import Store
from shoal.search.config.sections import Data
from shoal.search.corpus.build import COLUMNS, SPLITS, build_corpus, describe, load_corpus, prepare_corpus
from shoal.search.corpus.manifest import name_of
from shoal.search.errors import InputError
from shoal.trainables.tokenizer import Bytes

QUIET = {"report": lambda line: None}


def texts(count, word="fish", seed=0):
    """Return documents that differ, each of some 200 bytes."""
    letters = np.random.default_rng(seed).integers(97, 123, (count, 150)).astype(np.uint8)
    return [f"{word} {index}\n{letters[index].tobytes().decode()}\n" for index in range(count)]


def folder(path, contents):
    path.mkdir(parents=True, exist_ok=True)
    for index, content in enumerate(contents):
        (path / f"{index:04d}.txt").write_text(content)
    return str(path)


def data(tmp_path, **changes):
    return Data(**{"corpus": str(tmp_path / "corpus"), "sequence_length": 32, **changes})


def table(config, group, split):
    return Store(config.corpus).read_table(f"{group}/{split}")


def rows(config, group, split):
    """Return (row ids, tokens)."""
    read = table(config, group, split)
    # as docs/design/data.md says to those who have no Shoal
    tokens = np.frombuffer(b"".join(read["tokens"].to_pylist()), "<u2").reshape(read.num_rows, -1)
    return read["row_id"].to_numpy(), tokens


def kept(config, group):
    """Return the group's text, all rows of all splits, in no order."""
    return "".join(Bytes().decode(rows(config, group, split)[1]) for split in SPLITS)


def files(config):
    root = Path(config.corpus)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def named(manifest):
    """Return the names of all files that a place with this corpus should hold."""
    splits = [split for group in manifest.groups.values() for split in group.splits.values()]
    name = name_of(manifest)
    kept = {"manifest.json", f"manifests/{name}", f"sources/{name}"}
    return {*kept, *(file for split in splits for file in split.files)}


@pytest.fixture
def two_groups(tmp_path):
    groups = {
        "sea": folder(tmp_path / "sea", texts(200)),
        "air": folder(tmp_path / "air", texts(150, "bird", seed=1)),
    }
    return data(tmp_path, groups=groups)


def test_the_manifest_says_what_the_files_hold(two_groups):
    manifest = build_corpus(two_groups, **QUIET)
    assert set(files(two_groups)) == named(manifest)
    for name, group in manifest.groups.items():
        assert (group.duplicates, group.skipped) == (0, 0)
        for split, value in group.splits.items():
            read = table(two_groups, name, split)
            assert read.schema.field("row_id").type == pa.int64()
            assert read.schema.field("tokens").type == pa.binary(64)
            assert read.schema.metadata[b"tokens"] == b"32 numbers a row, uint16, little-endian"
            assert (value.rows, value.tokens) == (read.num_rows, read.num_rows * 32)
    assert [line[0] for line in describe(manifest)] == ["sea", "air"]
    assert all(len(line) == len(COLUMNS) for line in describe(manifest))
    assert describe(manifest)[0][1] == 200
    assert load_corpus(two_groups) == manifest


def test_two_builds_are_the_same_to_the_byte(two_groups, tmp_path):
    again = two_groups.model_copy(update={"corpus": str(tmp_path / "again")})
    assert build_corpus(two_groups, **QUIET) == build_corpus(again, **QUIET)
    assert files(two_groups) == files(again)


def test_the_content_hash_follows_the_text(two_groups, tmp_path):
    before = build_corpus(two_groups, **QUIET).content
    (tmp_path / "sea" / "0000.txt").write_text("another text\n" * 20)
    assert build_corpus(two_groups, **QUIET).content != before


def test_a_document_is_kept_once_and_by_the_first_group(tmp_path):
    sea = texts(150)
    air = [*texts(150, "bird", seed=1), *sea[:7]]
    groups = {"sea": folder(tmp_path / "sea", [*sea, *sea[:20]]), "air": folder(tmp_path / "air", air)}
    config = data(tmp_path, groups=groups)
    manifest = build_corpus(config, **QUIET)
    assert [(group.documents, group.duplicates) for group in manifest.groups.values()] == [(150, 20), (150, 7)]
    assert "fish" not in kept(config, "air")
    assert kept(config, "sea").count("fish") <= 150


def test_no_document_is_in_two_splits(two_groups):
    build_corpus(two_groups, **QUIET)
    for group, word in (("sea", "fish"), ("air", "bird")):
        lines = [set(Bytes().decode(rows(two_groups, group, split)[1]).split("\n")) for split in SPLITS]
        whole = [{line for line in found if len(line) > 20} for found in lines]
        assert all(whole), f"a split of {word} is empty"
        assert not (whole[0] & whole[1] or whole[0] & whole[2] or whole[1] & whole[2])


def test_a_document_stays_in_its_split_when_others_come(two_groups, tmp_path):
    """Each row id of the smaller corpus that comes back does so in the same split, with the same tokens."""
    build_corpus(two_groups, **QUIET)
    more = two_groups.model_copy(update={"corpus": str(tmp_path / "more")})
    folder(tmp_path / "sea" / "more", texts(60, seed=2))
    build_corpus(more, **QUIET)
    for split in SPLITS:
        before, after = (dict(zip(*map(list, rows(c, "sea", split)), strict=True)) for c in (two_groups, more))
        others = [set(rows(more, "sea", other)[0]) for other in SPLITS if other != split]
        assert not any(set(before) & other for other in others)
        starts = [row for row in set(before) & set(after) if 256 not in before[row]]
        assert all((before[row] == after[row]).all() for row in starts)
    assert load_corpus(more).groups["sea"].documents == 260


def test_row_ids_are_unique_and_do_not_hang_on_other_groups(two_groups, tmp_path):
    build_corpus(two_groups, **QUIET)
    ids = np.concatenate([rows(two_groups, group, split)[0] for group in ("sea", "air") for split in SPLITS])
    assert np.unique(ids).size == ids.size
    assert ids.min() >= 0
    third = {**two_groups.groups, "land": folder(tmp_path / "land", texts(120, "worm", seed=3))}
    more = two_groups.model_copy(update={"corpus": str(tmp_path / "more"), "groups": third})
    build_corpus(more, **QUIET)
    for group in two_groups.groups:
        for split in SPLITS:
            assert table(two_groups, group, split).equals(table(more, group, split))


def test_neighbours_come_from_different_documents(tmp_path):
    contents = [f"{chr(97 + index % 26)}" * 640 + f"{index}\n" for index in range(120)]
    config = data(tmp_path, groups={"sea": folder(tmp_path / "sea", contents)})
    build_corpus(config, **QUIET)
    firsts = rows(config, "sea", "train")[1][:, 0]
    assert (firsts[1:] == firsts[:-1]).mean() < 0.15  # in reading order 0.95


def test_train_is_cut_into_files_of_one_row_group(tmp_path):
    config = data(tmp_path, sequence_length=8, groups={"sea": folder(tmp_path / "sea", texts(500))})
    split = build_corpus(config, **QUIET).groups["sea"].splits["train"]
    metadata = [pq.read_metadata(os.path.join(config.corpus, file)) for file in split.files]
    assert re.fullmatch(r"sea/train/part-00000-[0-9a-f]{16}\.parquet", split.files[0])
    assert [part.num_row_groups for part in metadata] == [1] * len(metadata)
    assert [part.num_rows for part in metadata[:-1]] == [4096] * (len(metadata) - 1)
    assert sum(part.num_rows for part in metadata) == split.rows > 4096


def test_one_long_text_is_cut_so_that_every_split_has_rows(tmp_path):
    path = tmp_path / "play.txt"
    path.write_text("".join(texts(1000)))
    config = data(tmp_path, groups={"play": str(path)})
    group = build_corpus(config, **QUIET).groups["play"]
    assert group.documents > 100
    share = {split: group.splits[split].rows / (path.stat().st_size / 32) for split in SPLITS}
    assert 0.01 < share["validation"] < 0.12 and 0.01 < share["test"] < 0.12 and share["train"] > 0.8


def fails(config, *words):
    with pytest.raises(InputError) as caught:
        build_corpus(config, **QUIET)
    for word in words:
        assert word in str(caught.value)
    assert not Store(config.corpus).exists("manifest.json")


def test_a_split_without_rows_names_group_and_share(tmp_path):
    config = data(tmp_path, groups={"sea": folder(tmp_path / "in", texts(3))}, validation=0.001)
    fails(config, "data.groups.sea", "validation split", "data.validation = 0.001", "more text")


def test_shares_that_leave_no_train_are_refused(tmp_path):
    config = data(tmp_path, groups={"sea": folder(tmp_path / "in", texts(3))}, validation=0.6, test=0.4)
    fails(config, "below 1", "0.6 + 0.4")


def test_no_groups_is_refused(tmp_path):
    fails(data(tmp_path), "data.groups")


def test_a_corpus_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    groups = {"sea": folder(tmp_path / "in", texts(120))}
    for corpus in (str(tmp_path / "file" / "corpus"), "nosuch://x"):
        with pytest.raises(InputError, match=r"data\.corpus must be"):
            build_corpus(data(tmp_path, corpus=corpus, groups=groups), **QUIET)


def test_a_build_that_fails_leaves_nothing_and_what_others_left_stays(two_groups, tmp_path):
    land = tmp_path / "land"
    land.mkdir()
    (land / "0.txt").write_text("too little")
    fails(
        two_groups.model_copy(update={"groups": {**two_groups.groups, "land": str(land)}}), "data.groups.land"
    )
    assert files(two_groups) == {}  # though two groups had been packed
    mine = tmp_path / "corpus" / "sea" / "train" / "part-mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    manifest = prepare_corpus(two_groups, **QUIET)
    assert set(files(two_groups)) == named(manifest) | {"sea/train/part-mine.txt"}
    with pytest.raises(InputError, match="lake"):
        prepare_corpus(two_groups.model_copy(update={"groups": {"lake": str(tmp_path / "lake")}}), **QUIET)
    assert load_corpus(two_groups) == manifest and mine.read_text() == "mine"


def test_a_corpus_inside_its_own_source_is_not_read_back(tmp_path):
    config = data(tmp_path, groups={"sea": folder(tmp_path, texts(120))})
    first = build_corpus(config, **QUIET)
    assert build_corpus(config, **QUIET) == first
    inside = config.model_copy(update={"groups": {"sea": str(tmp_path / "corpus" / "sea")}})
    with pytest.raises(InputError, match=r"outside of data\.corpus"):
        build_corpus(inside, **QUIET)


def test_prepare_builds_once_and_then_loads(two_groups):
    lines = []
    first = prepare_corpus(two_groups, lines.append)
    assert [line.split(":")[0] for line in lines] == ["sea", "air"]
    assert prepare_corpus(two_groups, lines.append) == first
    assert len(lines) == 2


def test_load_says_what_to_do_when_nothing_is_there(tmp_path):
    with pytest.raises(InputError, match="shoal corpus"):
        load_corpus(data(tmp_path, groups={"sea": "x"}))
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"sequence_length": 64}, "sequence_length is 32 there, 64 in the settings"),
        ({"megabytes": 1.0}, "megabytes is 8.0 there, 1.0 in"),
        ({"validation": 0.1}, "validation is 0.05 there, 0.1 in"),
        ({"test": 0.1}, "test is 0.05 there, 0.1 in"),
        ({"text_field": "body"}, "text_field is text there, body in"),
        ({"groups": {"sea": "elsewhere"}}, "groups.air is "),
    ],
)
def test_load_names_each_difference_and_the_way_out(two_groups, change, word):
    build_corpus(two_groups, **QUIET)
    with pytest.raises(InputError) as caught:
        load_corpus(two_groups.model_copy(update=change))
    assert word in str(caught.value)
    assert "`shoal corpus FILE`" in str(caught.value) and "another data.corpus" in str(caught.value)


def test_proportions_may_change_without_a_new_corpus(two_groups):
    manifest = build_corpus(two_groups, **QUIET)
    assert load_corpus(two_groups.model_copy(update={"proportions": {"sea": 1.0, "air": 2.0}})) == manifest


def test_load_refuses_a_manifest_or_a_corpus_that_is_broken(two_groups, tmp_path):
    manifest = build_corpus(two_groups, **QUIET)
    path = tmp_path / "corpus" / "manifest.json"
    for broken in ("{", "[]", "{}", json.dumps({**dataclasses.asdict(manifest), "format": 99})):
        path.write_text(broken)
        with pytest.raises(InputError, match="no manifest of format 1 to 4"):
            load_corpus(two_groups)
    path.write_text(json.dumps(dataclasses.asdict(manifest)))
    assert load_corpus(two_groups) == manifest
    (tmp_path / "corpus" / manifest.groups["air"].splits["test"].files[0]).unlink()
    with pytest.raises(InputError, match="has lost air/test/part-00000"):
        load_corpus(two_groups)
