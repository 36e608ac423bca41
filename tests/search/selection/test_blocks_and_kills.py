"""Decisions are the same whatever files hold the rows and in whatever order, and after a kill in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shoal.cluster.storage import Store
from shoal.search.corpus.manifest import find_corpus, publish_corpus
from shoal.search.selection.corpora import Corpus
from shoal.search.selection.duplicates import duplicate_folder
from shoal.search.selection.scoring import add_scores
from shoal.search.selection.select import decide_pool, select_corpus, target_of
from tests.search.selection.test_select import dsir, places, run_of, write_group

__all__ = ["places"]  # a fixture


def in_other_files(corpus: Corpus, folder: str, each: int) -> Corpus:
    """Return a corpus of the same rows, shuffled within their groups, in files of other sizes."""
    store, groups = Store(folder), {}
    for name, group in corpus.manifest.groups.items():
        split = group.splits["train"]
        whole = pa.concat_tables([corpus.store.read_table(file) for file in split.files])
        whole = whole.take(np.random.default_rng(0).permutation(len(whole)))
        parts = [whole.slice(start, each) for start in range(0, len(whole), each)]
        files = [f"{name}/train/other-{number}.parquet" for number in range(len(parts))]
        for file, part in zip(files, parts, strict=True):
            store.write_table(file, part)
        splits = {**group.splits, "train": replace(split, files=files, sizes=[len(part) for part in parts])}
        groups[name] = replace(group, splits=splits)
    manifest = replace(corpus.manifest, groups=groups)
    publish_corpus(store, manifest)
    return Corpus(corpus.data.model_copy(update={"corpus": folder}), manifest)


def decisions(run, pool: Corpus, target: Corpus) -> dict[int, tuple]:
    same = duplicate_folder(run, pool, run.selection.duplicates, print) if run.selection.duplicates else ""
    folders, theirs = add_scores(run, pool, target, same, False, print)
    found = decide_pool(run, pool, target, folders, theirs, same, print)
    said = [found.selected.why(place) for place in range(len(found.ids))]
    margins = np.nan_to_num(found.selected.margin, nan=-1e9).tolist()  # NaN is equal to nothing
    each = zip(found.selected.copies.tolist(), margins, said, strict=True)
    return dict(zip(found.ids.tolist(), each, strict=True))


@pytest.mark.parametrize("duplicates", [None, {"similarity": 0.5, "shingle": 4}])
def test_neither_files_nor_their_order_decide(tmp_path, places, duplicates) -> None:
    if duplicates:
        pytest.importorskip("datasketch")
        file = Path(places["wood"], "texts.jsonl")
        lines = file.read_text().splitlines()
        file.write_text("\n".join(lines + [line.replace('"}', ' again"}') for line in lines[:10]]))
    run = run_of(tmp_path, places, dsir(places, duplicates=duplicates, share=0.1))
    select_corpus(run, print)
    pool = Corpus(run.data, find_corpus(run.data))
    target = target_of(run, print, renew=False)
    first = decisions(run, pool, target)
    assert len({said for _, _, said in first.values()}) == (3 if duplicates else 2)
    for each in (7, 64):
        assert decisions(run, in_other_files(pool, str(tmp_path / f"by-{each}"), each), target) == first


SLOW = """
import time
import numpy as np

class Slow:
    def score(self, rows):
        time.sleep(0.7)
        return {"score": np.asarray(rows)[:, 5].astype(float)}
"""


def test_a_command_that_is_killed_goes_on_and_chooses_the_same(tmp_path) -> None:
    (tmp_path / "slow_score_of_test.py").write_text(SLOW)
    kinds = {f"group{number}": "sea" if number % 2 else "wood" for number in range(4)}
    groups = {
        name: write_group(tmp_path / name, kind, 12, seed) for seed, (name, kind) in enumerate(kinds.items())
    }
    selection = {
        "policy": "top",
        "rows": 20,
        "scores": [{"kind": "own", "made": "slow_score_of_test:Slow"}],
    }
    values = {
        "name": "killed",
        "data": {"groups": groups, "sequence_length": 64, "corpus": str(tmp_path / "corpus")},
        "hyperparameters": {"learning_rate": {"kind": "float", "low": 0.001, "high": 0.01}},
        "selection": selection,
    }
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(values))
    command = [sys.executable, "-m", "shoal", "select", str(file)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    begun = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    scores = Path(tmp_path, "corpus", "scores")
    until = time.monotonic() + 240
    while not list(scores.glob("own-*/*/train/*.parquet")) and time.monotonic() < until:
        time.sleep(0.02)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    done = {each: each.stat().st_mtime_ns for each in scores.glob("own-*/*/train/*.parquet")}
    assert done and not list(scores.glob("own-*/scored.json"))
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert all(each.stat().st_mtime_ns == before for each, before in done.items())
    (record,) = Path(tmp_path, "corpus-selected", "selections").glob("*/selection.json")
    values["data"]["corpus"] = str(tmp_path / "whole")
    file.write_text(json.dumps(values))
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL)
    (whole,) = Path(tmp_path, "whole-selected", "selections").glob("*/selection.json")
    assert json.loads(record.read_text())["content"] == json.loads(whole.read_text())["content"]
