"""Six groups of real text for benchmarks: three of any Python installation, three of a folder of data sets."""

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shoal.cluster.row_order import RowOrder
from shoal.cluster.rows import as_rows
from shoal.cluster.storage import Store
from shoal.search.config.sections import Data
from shoal.search.corpus.build import Manifest, prepare_corpus
from shoal.search.corpus.held_out import sampled_rows

INSTALLED = ("code", "docs", "law")
GIVEN = ("maths", "plays", "reviews")  # of the folder of data sets
LENGTH = 64  # tokens, here bytes, of a row

HeldOut = dict[str, dict[str, NDArray[np.uint16]]]  # split -> group -> (rows, LENGTH)


def maths(folder: Path) -> list[str]:
    lines = (folder / "gsm8k/train.jsonl").read_text().splitlines()
    return [f"{problem['question']}\n{problem['answer']}\n" for problem in map(json.loads, lines)]


def plays(folder: Path) -> list[str]:
    """Return the plays in pieces of about 2 kB, cut between speeches."""
    speeches = (folder / "shakespeare/input.txt").read_text().split("\n\n")
    return ["\n\n".join(speeches[first : first + 16]) for first in range(0, len(speeches), 16)]


def reviews(folder: Path) -> list[str]:
    """Return the sentences of reviews, twenty together: one alone is shorter than a row."""
    lines = [re.sub(r"\t\d$", "", line) for line in (folder / "sst2/train.tsv").read_text().splitlines()]
    return ["\n".join(lines[first : first + 20]) for first in range(0, len(lines), 20)]


READERS = {"maths": maths, "plays": plays, "reviews": reviews}


def settings(corpus: str, folder: str) -> Data:
    """Return the corpus of all groups that are to be had; writes the folder's as JSON lines beside it."""
    groups = dict.fromkeys(INSTALLED, "installed")
    for name, read in READERS.items():
        if Path(folder).is_dir():
            file = Path(f"{corpus}-sources/{name}.jsonl").absolute()
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(json.dumps({"text": text}) + "\n" for text in read(Path(folder))))
            groups[name] = str(file)
    return Data(
        corpus=str(Path(corpus).absolute()),
        groups=groups,
        sequence_length=LENGTH,
        megabytes=2,
        validation=0.1,
        test=0.1,
    )


class Memory:
    """The training rows of one group, all or the first ones, in memory; each epoch has an order of its own."""

    def __init__(self, group: str, rows: NDArray[np.uint16], seed: int):
        self.rows, self.order = rows, RowOrder(group, [len(rows)], seed)

    def take(self, cursor: int, count: int) -> NDArray[np.uint16]:
        return self.rows[self.order.places(cursor, count)]


@cache
def rows(corpus: str, folder: str, groups: tuple[str, ...]) -> dict[str, NDArray[np.uint16]]:
    """Return all training rows of each group, `(rows, LENGTH)`."""
    store, manifest = _corpus(corpus, folder)
    return {
        name: np.concatenate(
            [as_rows(store.read_table(file)) for file in manifest.groups[name].splits["train"].files]
        )
        for name in groups
    }


def held_out(corpus: str, folder: str, groups: Sequence[str], validation: int, test: int) -> HeldOut:
    """Return a sample of the rows of each group's held-out splits."""
    found: HeldOut = {}
    for name, count in (("validation", validation), ("test", test)):
        store, manifest = _corpus(corpus, folder)
        found[name] = {group: sampled_rows(store, manifest, group, name, count) for group in groups}
    return found


@cache
def _corpus(corpus: str, folder: str) -> tuple[Store, Manifest]:
    return Store(corpus), prepare_corpus(settings(corpus, folder), lambda line: None)
