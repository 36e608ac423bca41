"""A corpus built in stages: the same rows however the work is spread, and the rules of the small builder."""

import json

import numpy as np
import pytest

from shoal.cluster.rows import as_rows
from shoal.cluster.storage import Store
from shoal.search.config.sections import Data
from shoal.search.corpus import stages
from shoal.search.corpus.batches import file_rows
from shoal.search.corpus.build import build_corpus, load_corpus
from shoal.search.errors import InputError
from tests.search.corpus.test_sources import TEXTS, as_archive, as_lines, as_parquet, folder


def settings(path, builder: str = "ray", **changes) -> Data:
    return Data(
        **{
            "corpus": str(path / "corpus"),
            "groups": {"sea": str(path / "in"), "lake": str(path / "lake")},
            "sequence_length": 8,
            "validation": 0.2,
            "test": 0.2,
            "builder": builder,
            "bad_share": 0.2,
        }
        | changes
    )


def write(path) -> None:
    folder(path / "in" / "deep", TEXTS[:60])
    as_parquet(path / "in" / "b.parquet", TEXTS[50:90])  # ten of them twice
    as_archive(path / "in" / "c.tar", TEXTS[90:])
    (path / "in" / "bad.jsonl").write_text('{"text": \n{"body": 1}\n')
    (path / "lake").mkdir()
    as_lines(path / "lake" / "a.jsonl", [*TEXTS[:40], *(f"lake {text}" for text in TEXTS)])


def rows(path, manifest, group: str, split: str) -> np.ndarray:
    store = Store(str(path / "corpus"))
    return np.concatenate(
        [as_rows(store.read_table(file)) for file in manifest.groups[group].splits[split].files]
    )


@pytest.mark.parametrize("size", [1, 3000, 1 << 30])
def test_stages_keep_every_text_once(tmp_path, here, monkeypatch, size) -> None:
    write(tmp_path)
    monkeypatch.setattr(stages.batches, "__defaults__", (size,))
    manifest = build_corpus(settings(tmp_path), lambda line: None)
    sea, lake = manifest.groups["sea"], manifest.groups["lake"]
    assert (sea.documents, sea.duplicates, sea.skipped) == (120, 10, 2)
    assert (lake.documents, lake.duplicates, lake.skipped) == (120, 40, 0)
    local = build_corpus(settings(tmp_path, "local", corpus=str(tmp_path / "local")), lambda line: None)
    for group in ("sea", "lake"):
        for split in ("train", "validation", "test"):
            each = manifest.groups[group].splits[split]
            assert sum(file_rows(each)) == each.rows == len(rows(tmp_path, manifest, group, split))
            # what is left over at a batch's end is all that differs from the small builder
            whole = local.groups[group].splits[split].rows
            assert whole - 140 <= each.rows <= whole
    assert load_corpus(settings(tmp_path)) == manifest
    with pytest.raises(InputError, match="builder is ray there, local in the settings"):
        load_corpus(settings(tmp_path, "local"))


def test_a_group_has_no_more_than_its_megabytes(tmp_path, here) -> None:
    write(tmp_path)
    manifest = build_corpus(settings(tmp_path, megabytes=0.008), lambda line: None)
    texts = sum(split.tokens for split in manifest.groups["sea"].splits.values())
    assert 6000 < texts <= 8000 + manifest.groups["sea"].documents


@pytest.mark.slow
@pytest.mark.ray
def test_on_ray_the_rows_are_the_same(tmp_path, monkeypatch) -> None:
    from shoal.cluster.session import session

    write(tmp_path)
    monkeypatch.setattr(stages.batches, "__defaults__", (3000,))
    with session():
        found = build_corpus(settings(tmp_path), lambda line: None)
    first = {name: rows(tmp_path, found, "sea", name) for name in ("train", "validation", "test")}

    def apply(function, items):
        return [function(item) for item in items]

    monkeypatch.setattr(stages.build_group_on_ray, "__defaults__", (apply,))
    again = build_corpus(settings(tmp_path), lambda line: None)
    assert (
        again == found and json.loads(Store(str(tmp_path / "corpus")).read("manifest.json"))["builder"] == "ray"
    )
    for name, expected in first.items():
        assert np.array_equal(rows(tmp_path, again, "sea", name), expected)
