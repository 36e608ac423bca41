"""Log-ratios of the target's own held-out rows: by them `dsir` calibrates those of the pool.

The n-grams are counted in the target's training rows; its validation and test rows are of other documents.
Their log-ratios lie beside the pool's, since they follow from the same fit.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shoal.policies.selection.dsir import HELD_OF, HELD_RATIO
from shoal.search.config.run import Run
from shoal.search.config.selection import NgramScore
from shoal.search.errors import InputError
from shoal.search.selection.corpora import Corpus, as_array, as_list_column, stored_rows
from shoal.search.selection.interface import RowScorer

HELD_OUT_FILE = "held_out.parquet"
LEAST_HELD_OUT = 20  # rows of each target: odds that fewer say little about


def wants_held_out(run: Run, settings: Any) -> bool:
    assert run.selection is not None
    return isinstance(settings, NgramScore) and HELD_RATIO in run.selection.policy.build().aims


def held_out_ratios(targets: Corpus, score: RowScorer) -> pa.Table:
    """Return the log-ratios of all held-out rows, and the number of the target that each is of.

    Raises InputError where a target has too few of them.
    """
    found, of = [], []
    for number, (name, group) in enumerate(targets.groups.items()):
        held = [split for kind, split in group.splits.items() if kind != "train"]
        rows = sum(split.rows for split in held)
        if rows < LEAST_HELD_OUT:
            raise InputError(
                f"selection.policy.calibrated: needs at least {LEAST_HELD_OUT} held-out rows of each target, "
                f"but {name} has {rows}; give more of it, raise data.validation, or leave "
                f"calibrated out."
            )
        for file in (file for split in held for file in split.files):
            ids, tokens = stored_rows(targets.store, file)
            found.append(score(tokens, ids)["log_ratio"])
            of.append(np.full(len(ids), number))
    return pa.table({HELD_RATIO: as_list_column(np.concatenate(found)), HELD_OF: np.concatenate(of)})


def read_held_out(pool: Corpus, folders: list[str]) -> dict[str, NDArray[Any]]:
    """Return what a scoring stage has kept of the target's held-out rows."""
    places = [f"{folder}/{HELD_OUT_FILE}" for folder in folders]
    table = pool.store.read_table(next(place for place in places if pool.store.exists(place)))
    return {name: as_array(table[name]) for name in (HELD_RATIO, HELD_OF)}
