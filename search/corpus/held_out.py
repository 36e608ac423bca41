"""Samples of held-out rows: of the whole split, the same ones for every member and every run of a corpus."""

import zlib
from typing import Any

import numpy as np

from shoal.cluster.rows import as_rows, by_field
from shoal.cluster.storage import Store
from shoal.search.corpus.batches import file_rows
from shoal.search.corpus.manifest import Manifest


def sampled_rows(store: Store, manifest: Manifest, group: str, split: str, count: int) -> Any:
    """Return so many rows of a group's split, or all of them; the corpus's content draws them.

    A smaller sample is the beginning of a larger one.
    """
    found = manifest.groups[group].splits[split]
    places = generator_of(manifest, group, split).permutation(found.rows)[:count]
    starts = np.cumsum([0, *file_rows(found)])
    owners = np.searchsorted(starts, places, side="right") - 1
    rows = np.empty(len(places), manifest.row_type)
    for file in np.unique(owners).tolist():
        stored = as_rows(store.read_table(found.files[file]), manifest.row_type)
        rows[owners == file] = stored[places[owners == file] - starts[file]]
    return by_field(rows)


def generator_of(manifest: Manifest, group: str, split: str) -> np.random.Generator:
    """Return the generator that draws from a group's split; the corpus's content seeds it."""
    return np.random.default_rng([int(manifest.content[:16], 16), zlib.crc32(f"{group}/{split}".encode())])
