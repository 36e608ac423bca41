import io
import json
import os
import sys
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shoal.search.config.sections import Data
from shoal.search.corpus import installed, listing, opening, sources
from shoal.search.corpus.documents import gather
from shoal.search.corpus.making import pick_of
from shoal.search.corpus.quarantine import Quarantine
from shoal.search.errors import InputError

TEXTS = [f"fish {index}\n" + f"{index * 7919:06d}" * 25 + "\n" for index in range(120)]


def folder(path, contents):
    path.mkdir(parents=True, exist_ok=True)
    for index, content in enumerate(contents):
        (path / f"{index:04d}.txt").write_text(content)


def as_parquet(path, contents, column="text"):
    pq.write_table(pa.table({"n": range(len(contents)), column: contents}), path, row_group_size=50)


def as_lines(path, contents, field="text"):
    path.write_text("".join(json.dumps({"n": 1, field: text}) + "\n" for text in contents))


def as_archive(path, contents, mode="w"):
    with tarfile.open(path, mode) as tar:
        for index, text in enumerate(contents):
            member(tar, f"deep/{index:05d}.cls", b"1")
            kind, content = [("txt", text), ("json", json.dumps({"text": text}))][index % 2]
            member(tar, f"deep/{index:05d}.{kind}", content.encode())


def member(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def as_saved_dataset(path, contents):
    """Write what `datasets.Dataset.from_dict({"text": contents}).save_to_disk(path)` writes."""
    path.mkdir()
    table = pa.table({"text": contents})
    with pa.ipc.new_stream(path / "data-00000-of-00001.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=50)
    (path / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    (path / "dataset_info.json").write_text('{"description": ""}')


def read(source, group="sea", **changes):
    """Return (texts, duplicates, skipped)."""
    settings = Data(**{"corpus": "nowhere/corpus", "groups": {group: str(source)}, **changes})
    quarantine = Quarantine(group)
    documents, duplicates = gather(group, settings, pick_of(group, settings), set(), quarantine)
    return [document.content.decode() for document in documents], duplicates, quarantine.documents


def fails(source, *words, **changes):
    with pytest.raises(InputError) as caught:
        read(source, **changes)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "all.parquet",
        "all.jsonl",
        "all.tar",
        "all.tar.gz",
        "all.tgz",
        "saved",
        "in",
        "in/*/e?/[0-9]*.txt",
        "in/*",
        "in/**",
        "in/**/*.txt",
        "in/**/er/**/*.txt",
        "file://in",
        "file://in/**/0*.txt",
    ],
)
def test_every_kind_of_source_gives_the_same_documents(tmp_path, source):
    folder(tmp_path / "in" / "deep" / "er", TEXTS)
    as_parquet(tmp_path / "all.parquet", TEXTS)
    as_lines(tmp_path / "all.jsonl", TEXTS)
    as_archive(tmp_path / "all.tar", TEXTS)
    for name in ("all.tar.gz", "all.tgz"):
        as_archive(tmp_path / name, TEXTS, "w:gz")
    as_saved_dataset(tmp_path / "saved", TEXTS)
    (tmp_path / "in" / ".hidden").write_text("never read")
    scheme, _, path = source.rpartition("://")
    found = read(f"{scheme}://{tmp_path}/{path}" if scheme else tmp_path / path)
    assert sorted(found[0]) == sorted(TEXTS)
    assert found[1:] == (0, 0)


def test_a_glob_takes_only_what_fits(tmp_path):
    folder(tmp_path / "a", TEXTS)
    folder(tmp_path / "b" / "c", ["no"])
    (tmp_path / "a" / "x.md").write_text("no")
    assert sorted(read(tmp_path / "a" / "*.txt")[0]) == sorted(TEXTS)
    assert read(tmp_path / "*" / "x.md")[0] == ["no"]
    assert read(tmp_path / "**" / "c" / "*")[0] == ["no"]


def test_a_file_whose_name_looks_like_a_glob_is_taken_as_it_is(tmp_path):
    (tmp_path / "a[1].txt").write_text("itself")
    (tmp_path / "a1.txt").write_text("another")
    assert read(tmp_path / "a[1].txt")[0] == ["itself"]


def test_the_order_is_the_same_anywhere_and_not_that_of_names(tmp_path):
    folder(tmp_path / "one", TEXTS)
    folder(tmp_path / "two" / "deeper", reversed(TEXTS))
    for index, path in enumerate(sorted((tmp_path / "two" / "deeper").iterdir(), reverse=True)):
        path.rename(tmp_path / "two" / f"{index:04d}.txt")
    first = read(tmp_path / "one")[0]
    assert first == read(tmp_path / "two")[0]
    assert first != sorted(first)


def test_a_folder_may_mix_kinds_and_the_field_may_have_another_name(tmp_path):
    folder(tmp_path, TEXTS[:40])
    as_parquet(tmp_path / "b.parquet", TEXTS[40:80], "body")
    as_lines(tmp_path / "c.jsonl", TEXTS[80:], "body")
    assert sorted(read(tmp_path, text_field="body")[0]) == sorted(TEXTS)


def test_empty_and_undecodable_documents_are_counted(tmp_path):
    folder(tmp_path, [*TEXTS, "", " \n"])
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff\xfe" * 50)
    as_parquet(tmp_path / "b.parquet", [None, "", TEXTS[0]])
    (tmp_path / "c.jsonl").write_bytes(b'{"text": "\\ud800"}\n{"text": "\xff"}\n\n{"text": null}\n')
    found, duplicates, skipped = read(tmp_path)
    assert sorted(found) == sorted(TEXTS)
    assert (duplicates, skipped) == (1, 6)  # files that are empty are nothing, and no mistake


def test_megabytes_bounds_a_group_and_spares_reading(tmp_path, monkeypatch):
    opened = []
    real = sources.contents

    def counting(file):
        opened.append(file.key)
        return real(file)

    monkeypatch.setattr(sources, "contents", counting)
    folder(tmp_path, TEXTS)
    found = read(tmp_path, megabytes=0.001)[0]
    assert 996 < len("".join(found)) <= 1000
    assert len(opened) == 51  # documents of 157 to 160 bytes: a sample of 8000 bytes of them
    assert opened != sorted(opened)


@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_a_file_far_too_large_is_read_in_part_and_from_all_over(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(opening, "SPAN", 4_000)
    contents = [f"fish {index} " + "x" * 150 + "\n" for index in range(4000)]
    path = tmp_path / f"large.{kind}"
    write = {"txt": lambda p, c: p.write_text("".join(c)), "jsonl": as_lines, "parquet": as_parquet}[kind]
    write(path, contents)
    found = "".join(read(path, megabytes=0.1)[0]).split("\n")
    numbers = {int(line.split()[1]) for line in found if line.startswith("fish ")}
    assert 500 < len(numbers) < 700
    assert min(numbers) < 800 and max(numbers) > 3200


def test_spans_hold_each_line_once(tmp_path, monkeypatch):
    lengths = (0, 3, 6, 7, 8, 63, 64, 65, 200, 1, 0, 0, 999, 5)
    lines = [bytes([65 + index]) * length + b"\n" for index, length in enumerate(lengths)]
    path = tmp_path / "lines.txt"
    path.write_bytes(b"".join(lines))
    for span in [*range(1, 80), 1000, 2000]:
        monkeypatch.setattr(opening, "SPAN", span)
        with open(path, "rb") as raw:
            found = list(opening.spans(raw, "lines.txt", path.stat().st_size))
        assert all(stretch.endswith(b"\n") for stretch in found)
        assert sorted(b"".join(found).splitlines()) == sorted(line.strip() for line in lines)


def test_few_documents_are_cut_at_line_ends(tmp_path):
    (tmp_path / "play.txt").write_text("".join(TEXTS))
    found = read(tmp_path / "play.txt")[0]
    assert "".join(found) == "".join(TEXTS)
    assert len(found) > 30 and all(len(piece) <= 512 and piece.endswith("\n") for piece in found)


def test_of_many_documents_only_one_that_is_most_of_a_split_is_cut(tmp_path):
    long = "".join(f"line {index}\n" for index in range(1000))
    folder(tmp_path, [*TEXTS, long])
    found = read(tmp_path)[0]
    assert set(TEXTS) <= set(found)
    assert sum(map(len, found)) == len(long) + sum(map(len, TEXTS))
    assert max(map(len, found)) <= 512


def test_a_text_without_line_ends_is_cut_between_characters(tmp_path):
    text = "".join(chr(0x4E00 + index) for index in range(20_000))
    (tmp_path / "one line.txt").write_text(text)
    found = read(tmp_path / "one line.txt")[0]
    assert len(found) > 100 and "".join(found) == text


@pytest.mark.parametrize("source", ["absent", "absent/*.txt", "empty", "file:///absent/x.parquet"])
def test_a_source_without_files_names_group_source_and_what_is_allowed(tmp_path, source):
    (tmp_path / "empty").mkdir()
    source = source if "://" in source else str(tmp_path / source)
    fails(source, "data.groups.sea", source, "no file", ".parquet", ".jsonl")


def test_a_source_that_is_no_uri_is_refused():
    fails("nosuch://x/y", "data.groups.sea (nosuch://x/y)", "cannot be listed")


def test_a_missing_column_or_field_names_those_there(tmp_path):
    as_parquet(tmp_path / "a.parquet", TEXTS, "body")
    as_lines(tmp_path / "a.jsonl", TEXTS, "body")
    for name in ("a.parquet", "a.jsonl"):
        fails(tmp_path / name, "data.groups.sea", name, "'text'", "data.text_field", "'body'", "'n'")


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.parquet", b"not parquet", "arquet"),
        ("a.jsonl", b'{"text": "good"}\n{"text": \n', "each line must be JSON"),
        ("a.jsonl", b"[1, 2]\n", "JSON object"),
        ("a.jsonl", b'{"text": 3}\n', "must hold text, got int"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path, name, content, word):
    (tmp_path / name).write_bytes(content)
    fails(tmp_path / name, "data.groups.sea", name, word)


def test_a_column_that_holds_no_text_is_refused(tmp_path):
    as_parquet(tmp_path / "a.parquet", [1, 2, 3])
    fails(tmp_path / "a.parquet", "must hold text, got int")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    folder(tmp_path, TEXTS)
    (tmp_path / "0007.txt").chmod(0)
    fails(tmp_path, "data.groups.sea", str(tmp_path), "0007.txt")


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    folder(tmp_path, TEXTS)
    monkeypatch.setattr(listing, "opened", refuse)
    fails(tmp_path, "data.groups.sea", str(tmp_path), ".txt", "Permission denied")


def test_installed_is_three_groups_that_need_no_download():
    found = {group: read("installed", group, megabytes=0.2) for group in installed.INSTALLED}
    assert list(found) == ["code", "docs", "law"]
    for contents, _, _ in found.values():
        assert 40_000 < sum(len(text.encode()) for text in contents) <= 200_000
    assert "import " in "".join(found["code"][0])
    assert "copyright" in "".join(found["law"][0]).lower()


def test_installed_is_for_three_groups_only():
    fails("installed", "data.groups.maths", "code, docs, law", group="maths")


def test_installed_takes_descriptions_without_headers_and_skips_what_cannot_be_read(tmp_path, monkeypatch):
    package = tmp_path / "package-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Name: package\n\n# What it is\n\n" + TEXTS[0])
    (package / "LICENSE.md").write_text("Permission is granted")
    (tmp_path / "README.md").symlink_to(tmp_path / "gone")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "other.md").write_text("of another installation")
    monkeypatch.setattr(installed.sysconfig, "get_paths", lambda: dict.fromkeys(installed.ROOTS, str(tmp_path)))
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    assert read("installed", "docs", bad_share=0.6) == (["# What it is\n\n" + TEXTS[0]], 0, 1)
    assert "Permission is granted" in read("installed", "law")[0]
