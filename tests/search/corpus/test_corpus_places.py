"""Several corpora in one place: each stays whole, is found by its settings, and is as its sources are."""

import errno
import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np
import pytest
from pyarrow import fs

from shoal.cluster.storage import Store
from shoal.search.config.sections import Data
from shoal.search.corpus import stages, staging
from shoal.search.corpus.build import build_corpus, load_corpus, prepare_corpus
from shoal.search.corpus.listing import Place, files_at
from shoal.search.corpus.manifest import Manifest
from shoal.search.corpus.sources import listed
from shoal.search.errors import InputError
from tests.helpers.odd_files import all_of, array, holds, lines, link


def quiet(line: str) -> None:
    """Say nothing."""


def settings(tmp_path, groups: dict[str, str], **changes) -> Data:
    given = {
        "corpus": str(tmp_path / "corpus"),
        "groups": {name: str(tmp_path / source) for name, source in groups.items()},
        "sequence_length": 8,
        "validation": 0.2,
        "test": 0.2,
    }
    return Data(**{**given, **changes})


@pytest.fixture
def two(tmp_path) -> tuple[Data, Data]:
    """Settings of two runs that have one place and the same names of groups, but other text."""
    for name, first in (("a", 0), ("b", 100), ("c", 200), ("d", 300)):
        holds(f"{name}.jsonl", lines(first, 60))(tmp_path)
    one = settings(tmp_path, {"one": "a.jsonl", "two": "b.jsonl"})
    return one, settings(tmp_path, {"one": "c.jsonl", "two": "d.jsonl"})


def content_of(corpus: str, manifest: Manifest) -> str:
    """Hash what lies there as a build does."""
    whole = hashlib.blake2b(digest_size=16)
    for name, group in manifest.groups.items():
        content = hashlib.blake2b(digest_size=16)
        for split, value in group.splits.items():
            parts = [Store(corpus).read_table(file) for file in value.files]
            ids = np.concatenate([part["row_id"].to_numpy() for part in parts])
            content.update(f"{name}/{split}/{len(ids)}\n".encode() + ids.astype("<i8").tobytes())
            content.update(b"".join(b"".join(part["tokens"].to_pylist()) for part in parts))
        whole.update(content.digest())
    return whole.hexdigest()


def test_two_runs_in_one_place_have_a_corpus_each(two) -> None:
    one, other = two
    first, second = prepare_corpus(one, quiet), prepare_corpus(other, quiet)
    assert first.content != second.content
    for each, manifest in ((one, first), (other, second)):
        assert load_corpus(each) == manifest and content_of(each.corpus, manifest) == manifest.content
        assert prepare_corpus(each, pytest.fail) == manifest  # without a word
        # what was asked for last is what stands where other programs look
        assert Manifest.of(Store(each.corpus).read_json("manifest.json")) == manifest
    assert load_corpus(one, second.content) == second  # by its rows, whatever the settings


def test_a_build_within_another_leaves_both_whole(two) -> None:
    one, other = two

    def meanwhile(line: str) -> None:
        if line.startswith("one:"):  # the first group of the first build is packed
            build_corpus(other, quiet)

    built = build_corpus(one, meanwhile)
    for each in (one, other):
        manifest = load_corpus(each)
        assert content_of(each.corpus, manifest) == manifest.content
    assert load_corpus(one) == built
    assert not [name for name in os.listdir(one.corpus) if name.startswith(staging.PREFIX)]


def test_builds_at_the_same_time_leave_all_whole(two) -> None:
    with ThreadPoolExecutor(4) as threads:
        built = list(threads.map(lambda each: build_corpus(each, quiet), [*two, *two]))
    assert built[0] == built[2] and built[1] == built[3]
    for each, manifest in zip(two, built, strict=False):
        assert load_corpus(each) == manifest and content_of(each.corpus, manifest) == manifest.content


def test_a_corpus_older_than_its_sources_is_built_again_for_a_new_run(tmp_path) -> None:
    folder = tmp_path / "in"
    holds("a.jsonl", lines(0, 60))(folder)
    holds("b.jsonl", lines(60, 60))(folder)
    config, said = settings(tmp_path, {"docs": "in"}), []
    first = prepare_corpus(config, said.append, renew=True)
    assert prepare_corpus(config, pytest.fail, renew=True) == first
    holds("a.jsonl", lines(500, 70))(folder)
    holds("c.jsonl", lines(200, 60))(folder)
    said.clear()
    assert prepare_corpus(config, said.append) == first  # for a run that goes on
    assert len(said) == 1 and "is older than its sources and used as it is" in said[0]
    said.clear()
    second = prepare_corpus(config, said.append, renew=True)
    assert second.groups["docs"].documents == 190
    assert f"1 file is new ({folder}/c.jsonl since 20" in said[0]
    assert f"1 file is changed ({folder}/a.jsonl since 20" in said[0]
    assert prepare_corpus(config, pytest.fail, renew=True) == second
    (folder / "b.jsonl").unlink()
    said.clear()
    assert prepare_corpus(config, said.append, renew=True).groups["docs"].documents == 130
    assert f"1 file is gone ({folder}/b.jsonl)" in said[0]
    assert load_corpus(config, first.content) == first  # for the runs that began with it


def test_a_corpus_whose_sources_are_gone_is_used_and_said(tmp_path) -> None:
    holds("a.jsonl", lines(0, 60))(tmp_path / "in")
    config, said = settings(tmp_path, {"docs": "in"}), []
    first = prepare_corpus(config, quiet)
    (tmp_path / "in" / "a.jsonl").unlink()
    assert prepare_corpus(config, said.append, renew=True) == first
    assert len(said) == 1 and f"{tmp_path}/in is gone" in said[0]


def test_what_is_installed_is_never_older_than_its_corpus(tmp_path) -> None:
    config = settings(tmp_path, {}, megabytes=0.05).model_copy(update={"groups": {"law": "installed"}})
    first = prepare_corpus(config, quiet)
    assert prepare_corpus(config, pytest.fail, renew=True) == first


def test_a_corpus_of_an_earlier_shoal_is_read_and_kept(two) -> None:
    one, other = two
    plain = asdict(build_corpus(one, quiet))
    store = Store(one.corpus)
    for folder in ("manifests", "sources"):
        store.delete(folder)
    for name, group in plain["groups"].items():
        del group["reasons"], group["quarantine"]
        for split, value in group["splits"].items():
            old = f"{name}/{split}/part-00000.parquet"
            store.filesystem.move(store.path(value["files"][0]), store.path(old))
            value["files"] = [old]
    store.write_json("manifest.json", {**plain, "format": 2})
    before = load_corpus(one)
    assert before.format == 2 and prepare_corpus(one, pytest.fail, renew=True) == before
    build_corpus(other, quiet)
    assert load_corpus(one) == before and content_of(one.corpus, before) == before.content


class Full:
    """A filesystem whose disk is full after some bytes."""

    def __init__(self, inner: fs.FileSystem, room: int):
        self.inner, self.room = inner, room

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    def open_output_stream(self, path: str):
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= 1
        return self.inner.open_output_stream(path)


@pytest.mark.parametrize("builder", ["local", "ray"])
@pytest.mark.parametrize("room", [0, 1, 4, 7, 8])
def test_a_full_disk_is_one_line_and_the_second_try_works(tmp_path, two, monkeypatch, builder, room) -> None:
    monkeypatch.setattr(
        stages.build_group_on_ray, "__defaults__", (lambda function, items: map(function, items),)
    )
    config = two[0].model_copy(update={"builder": builder})
    rooms = Full(fs.LocalFileSystem(), room)
    real = Store.__init__

    def small(self, uri):
        real(self, uri)
        if uri == config.corpus:
            self.filesystem = rooms

    with monkeypatch.context() as full:
        full.setattr(Store, "__init__", small)
        with pytest.raises(InputError) as raised:
            build_corpus(config, quiet)
    said = str(raised.value)
    assert f"data.corpus: {config.corpus} cannot be written" in said and "No space left" in said
    assert "Free some room there" in said and "\n" not in said
    left = [str(path) for path in (tmp_path / "corpus").rglob("*") if path.is_file()]
    assert not [path for path in left if "manifest.json" in path or ".build-" in path]
    elsewhere = config.model_copy(update={"corpus": str(tmp_path / "elsewhere")})
    assert prepare_corpus(config, quiet) == build_corpus(elsewhere, quiet)


def test_what_a_killed_build_left_is_swept_after_a_day(two) -> None:
    one, _ = two
    left, live = f"{staging.PREFIX}killed", f"{staging.PREFIX}alive"
    for name in (left, live):
        Store(one.corpus).write(f"{name}/one/part.parquet", b"half")
    yesterday = time.time() - 2 * staging.FORGOTTEN
    for folder, _, files in os.walk(f"{one.corpus}/{left}"):
        for name in [*files, "."]:
            os.utime(f"{folder}/{name}", (yesterday, yesterday))
    build_corpus(one, quiet)
    there = os.listdir(one.corpus)
    assert left not in there and live in there


def test_a_build_says_what_was_left_out_and_why_documents_were_skipped(tmp_path) -> None:
    folder = tmp_path / "in"
    all_of(holds("a.jsonl", lines(0, 60) + b"{\n[]\n"), holds("_SUCCESS", b""), holds("_x/b", b"x"))(folder)
    said: list[str] = []
    group = build_corpus(settings(tmp_path, {"docs": "in"}), said.append).groups["docs"]
    assert "docs: left out" in said[0] and "2 names such as" in said[0] and "_SUCCESS" in said[0]
    assert said[-1].startswith("docs: 2 skipped: 1 x each line must be JSON (")
    assert said[-1].endswith(f"they are in {tmp_path}/corpus/{group.quarantine}")
    rows = Store(str(tmp_path / "corpus")).read_table(group.quarantine)
    assert rows.num_rows == group.skipped == 2


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("", ["a.jsonl", "k/b.jsonl"]),
        ("*", ["a.jsonl", "k/b.jsonl"]),
        ("k/*", ["k/b.jsonl"]),
        ("**/*.jsonl", ["[D]/c.jsonl", "a.jsonl", "k/b.jsonl"]),
        ("[D]/**", ["[D]/c.jsonl"]),
        ("[D]/*.jsonl", ["[D]/c.jsonl"]),
        ("{a,k/b}.jsonl", ["a.jsonl", "k/b.jsonl"]),
        ("{k,[D]}/?.jsonl", ["[D]/c.jsonl", "k/b.jsonl"]),
        ("s-{08..10}.txt", ["s-08.txt", "s-09.txt", "s-10.txt"]),
        ("s-0[89].txt", ["s-08.txt", "s-09.txt"]),
        ("_x/*", ["_x/d.jsonl"]),
        ("_x", ["_x/d.jsonl"]),
    ],
)
def test_a_glob_gives_the_same_files_on_any_filesystem(tmp_path, source, names) -> None:
    all_of(holds("a.jsonl", b"x"), holds("k/b.jsonl", b"x"), holds("[D]/c.jsonl", b"x"))(tmp_path)
    all_of(*(holds(f"s-{n:02d}.txt", b"x") for n in range(8, 11)))(tmp_path)
    all_of(holds("_x/d.jsonl", b"x"), holds(".git/e.jsonl", b"x"))(tmp_path)
    if source in ("", "*"):
        names = sorted([*names, "[D]/c.jsonl", *(f"s-{n:02d}.txt" for n in range(8, 11))])
    local = files_at(Place(fs.LocalFileSystem(), f"{tmp_path}/{source}".rstrip("/")))
    elsewhere = files_at(Place(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), source))
    assert [os.path.relpath(file.path, tmp_path) for file in local.files] == names
    assert [file.path for file in elsewhere.files] == names
    uri = listed("sea", Data(corpus="nowhere", groups={"sea": f"file://{tmp_path}/{source}"}))[1]
    assert [os.path.relpath(file.path, tmp_path) for file in uri.files] == names


def test_one_file_under_several_names_is_read_under_the_one_that_says_how(tmp_path) -> None:
    all_of(holds("blobs/1f2e", array(0, 3)), holds("k/x.txt", b"x"))(tmp_path)
    all_of(link("latest.json", "blobs/1f2e"), link("other", "k"), link("k/up", ".."))(tmp_path)
    found = files_at(Place(fs.LocalFileSystem(), str(tmp_path))).files
    assert [os.path.relpath(file.path, tmp_path) for file in found] == ["k/x.txt", "latest.json"]


def test_names_sizes_and_times_of_the_sources_are_kept(tmp_path) -> None:
    holds("a.jsonl", lines(0, 60))(tmp_path / "in")
    config = settings(tmp_path, {"docs": "in"})
    manifest = build_corpus(config, quiet)
    name = next(name for name in os.listdir(f"{config.corpus}/sources"))
    kept = json.loads(Store(config.corpus).read(f"sources/{name}"))
    file = tmp_path / "in" / "a.jsonl"
    assert kept == {"docs": {str(file): [file.stat().st_size, file.stat().st_mtime_ns]}}
    assert name.startswith(manifest.content)


def test_a_file_that_changes_while_it_is_read_twice_is_named(tmp_path, monkeypatch) -> None:
    holds("a.jsonl", lines(0, 60))(tmp_path / "in")
    passes = []

    def apply(function, items):
        passes.append(function)
        if len(passes) == 2:
            holds("a.jsonl", lines(30, 60))(tmp_path / "in")
        return map(function, items)

    monkeypatch.setattr(stages.build_group_on_ray, "__defaults__", (apply,))
    with pytest.raises(InputError, match=r"data\.groups\.docs .*have changed while they were read.*a\.jsonl"):
        build_corpus(settings(tmp_path, {"docs": "in"}, builder="ray"), quiet)


@pytest.mark.ray
def test_what_a_task_refuses_comes_without_rays_trace() -> None:
    def refuse(item: int) -> int:
        if item:
            raise InputError("data.groups.docs: of the sources")
        return item

    assert stages.on_ray(refuse, [0, 0]) == [0, 0]
    with pytest.raises(InputError, match=r"^data\.groups\.docs: of the sources$"):
        stages.on_ray(refuse, [0, 1])
