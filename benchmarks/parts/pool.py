"""A pool of rows as large as asked, written as a corpus has it, and what a selection out of it takes."""

import json
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shoal.cluster.session import session
from shoal.cluster.storage import Store
from shoal.policies.selection.dsir import HELD_RATIO
from shoal.search.config.run import Run
from shoal.search.config.selection import Selection
from shoal.search.corpus.manifest import CORPUS_FORMAT, Group, Manifest, find_corpus, publish_corpus
from shoal.search.corpus.packing import PART_ROWS, Split, write_part
from shoal.search.load import checked_run
from shoal.search.selection.corpora import Corpus
from shoal.search.selection.deciding import decide_rows, pool_rows
from shoal.search.selection.leaks import Leak
from shoal.search.selection.select import select_corpus
from shoal.search.selection.shown import shown_of
from shoal.search.selection.writing import write_decisions, write_selected

LENGTH, SHORT = 1024, 16  # tokens of a row; where only rows are counted they are short
VOCABULARY = 257
GROUPS = ("code", "docs", "law")


def run_of(folder: str) -> Run:
    for name in (*GROUPS, "like"):
        place = Path(folder, name)
        place.mkdir()
        lines = [json.dumps({"text": f"{name} {number} " * 500}) for number in range(40)]
        (place / "texts.jsonl").write_text("\n".join(lines))
    values = {
        "name": "pool",
        "directory": f"{folder}/run",
        "data": {
            "corpus": f"{folder}/corpus",
            "groups": {name: f"{folder}/{name}" for name in GROUPS},
            "sequence_length": LENGTH,
            "builder": "ray",
        },
        "hyperparameters": {"learning_rate": {"kind": "float", "low": 0.001, "high": 0.01}},
        "selection": {"policy": "dsir", "share": 0.01, "target": {"like": f"{folder}/like"}},
    }
    return checked_run(values, "run.yaml")


def write_pool(run: Run, files: int, length: int = LENGTH) -> int:
    """Write a corpus of so many files for each group, each with rows of its own; return its bytes."""
    store, rng, groups = Store(run.data.corpus), np.random.default_rng(0), {}
    tokens = rng.integers(0, VOCABULARY, (PART_ROWS, length)).astype(np.uint16)
    for number, group in enumerate(GROUPS):
        names = [f"{group}/train/part-{file:05d}.parquet" for file in range(files)]
        for file, name in enumerate(names):
            first = (number * files + file) * PART_ROWS
            write_part(store, name, np.arange(first, first + PART_ROWS), rng.permuted(tokens, axis=1))
        split = Split(files * PART_ROWS, files * tokens.size, names)
        groups[group] = Group(run.data.groups[group], files * PART_ROWS, 0, 0, {"train": split})
    data = run.data
    manifest = Manifest(
        CORPUS_FORMAT,
        data.tokenizer,
        VOCABULARY,
        length,
        "text",
        data.megabytes,
        data.validation,
        data.test,
        "0" * 32,
        groups,
        data.document_megabytes,
        data.builder,
        data.row_settings,
    )
    publish_corpus(store, manifest)
    return len(GROUPS) * files * tokens.nbytes


def measure(folder: str, budget: int, times: int, watch: Callable[[], Any]) -> dict[str, Any]:
    """Return what the selection of a hundredth of a pool takes, beyond that out of a pool of three files.

    `budget` is the object store's size in bytes, and `times` as often that is the pool's. Ray's processes and
    those that score take the same for both.
    """
    small = selection_of(f"{folder}/small", budget, 1, watch)
    files = max(1, times * budget // (len(GROUPS) * PART_ROWS * LENGTH * 2))
    large = selection_of(f"{folder}/large", budget, files, watch)
    more = large["peak"].total() - small["peak"].total()
    return {
        "budget_mib": budget / 2**20,
        "pool_over_budget": round(large["bytes"] / budget, 2),
        "rows": large["rows"],
        "kept": large["kept"],
        "small_mib": round(small["peak"].total() / 2**20, 1),
        "more_mib": round(more / 2**20, 1),
        "more_mib_by_process": by_process(large["peak"], small["peak"]),
        "more_mib_by_process_at_its_most": by_process(large["most"], small["most"]),
        "more_over_budget": round(more / budget, 3),
        "seconds": round(large["seconds"], 1),
    }


def by_process(large: Counter[str], small: Counter[str]) -> dict[str, float]:
    """Return how many MiB more each kind of process holds."""
    return {name: round((large[name] - small[name]) / 2**20, 1) for name in sorted(large)}


def bytes_a_row(folder: str, files: int) -> dict[str, float]:
    """Return what numpy and Python hold of each row at most while policies that go by scores decide and write.

    Pools of so many files a group, and of twice as many, are decided on in this process, from scores that are
    there. Arrow's buffers are not counted: they are those of a file. Decisions about `leaks` are DSIR's where
    one row of each hundred is in the target too.
    """
    each = []
    for number in (files, 2 * files):
        Path(folder, str(number)).mkdir()
        run = run_of(f"{folder}/{number}")
        run = run.model_copy(update={"data": run.data.model_copy(update={"sequence_length": SHORT})})
        write_pool(run, number, SHORT)
        manifest = find_corpus(run.data)
        assert manifest is not None
        corpus = Corpus(run.data, manifest)
        write_scores(corpus)
        each.append((corpus.rows, {name: most_held(run, corpus, name) for name in DECIDED}))
    (few, small), (many, large) = each
    return {name: round((large[name] - small[name]) / (many - few), 1) for name in DECIDED}


DECIDED: dict[str, dict[str, Any]] = {
    "random": {"policy": "random", "share": 0.1},
    "top": {"policy": {"kind": "top", "score": "log_ratio"}, "share": 0.1},
    "threshold": {"policy": {"kind": "threshold", "score": "log_ratio", "share": 0.1}},
    "threshold by_group": {
        "policy": {"kind": "threshold", "score": "log_ratio", "share": 0.1, "by_group": True}
    },
    "dsir": {"policy": "dsir", "share": 0.1},
    "dsir, calibrated": {"policy": {"kind": "dsir", "calibrated": True}, "share": 0.1},
    "dsir, leaks": {"policy": "dsir", "share": 0.1},
    "small_loss": {"policy": "small_loss"},
    "influence": {"policy": {"kind": "influence", "score": "log_ratio"}, "share": 0.1},
}


def write_scores(corpus: Corpus) -> None:
    rng = np.random.default_rng(1)
    for file in corpus.files:
        ids = corpus.store.read_table(file, columns=["row_id"])["row_id"]
        columns = {"log_ratio": rng.normal(size=len(ids)), "loss": rng.exponential(size=len(ids))}
        corpus.store.write_table(f"scores/made/{file}", pa.table({"row_id": ids, **columns}))


def most_held(run: Run, corpus: Corpus, name: str) -> int:
    """Return the most bytes that are held while a selection is decided, shown and written."""
    selection = Selection.model_validate(DECIDED[name])
    run, place = run.model_copy(update={"selection": selection}), Store(f"{run.data.corpus}-chosen")
    tracemalloc.start()
    leak = Leak(np.arange(corpus.rows) % 100 == 0, 0, 1, {}) if "leaks" in name else None
    held = {HELD_RATIO: np.random.default_rng(2).normal(1.0, 1.0, (200, 1))}
    decided = decide_rows(run, corpus, pool_rows(corpus, leak, ""), ["scores/made"], held, print)
    write_selected(corpus, run.data.model_copy(update={"corpus": place.uri}), decided)
    write_decisions(place, "decisions", corpus, decided)
    shown_of(corpus, decided)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def selection_of(folder: str, budget: int, files: int, watch: Callable[[], Any]) -> dict[str, Any]:
    """Choose out of a pool of so many files a group, in a Ray of its own; return its peak and its rows."""
    Path(folder).mkdir()
    run = run_of(folder)
    size = write_pool(run, files)
    with session(object_store_bytes=budget):
        watched, began = watch(), time.perf_counter()
        chosen = select_corpus(run, print)
        seconds = time.perf_counter() - began
        watched.over.set()
        watched.join()
    kept = {name: chosen.record[name] for name in ("rows", "kept")}
    return {"peak": watched.peak, "most": watched.most, "bytes": size, "seconds": seconds, **kept}
