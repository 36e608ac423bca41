"""Read the rows on which members train and are judged, as a run's file says."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from shoal.cluster.storage import Store
from shoal.cluster.streams import RowStream
from shoal.policies.mixing import normalise
from shoal.search.config.run import Run
from shoal.search.corpus.batches import MixedBatches, first_rows
from shoal.search.corpus.build import Manifest, load_corpus
from shoal.search.corpus.streams import limits, open_streams

OpenStreams = Callable[[Run, Manifest], Mapping[str, RowStream]]
HeldOut = dict[str, dict[str, NDArray[np.uint16]]]


def text_of(run: Run, streams_of: OpenStreams = open_streams) -> tuple[Callable[[], MixedBatches], HeldOut]:
    """Return a function that makes a member's batches from streams that all share, and the held-out rows."""
    manifest = load_corpus(run.data)
    streams = streams_of(run, manifest)
    share, stop = proportions(run, list(streams)), run.data.exhausted == "stop"
    bounds = limits(run.data, manifest, streams)
    return partial(MixedBatches, streams, share, run.training.batch, bounds, stop), held_out_of(run)


def held_out_of(run: Run) -> HeldOut:
    """Return split -> group -> rows `(rows, length)`."""
    return {split: first_of(run, split, run.training.evaluation_rows) for split in ("validation", "test")}


def first_of(run: Run, split: str, count: int) -> dict[str, NDArray[np.uint16]]:
    """Return the first rows of each group `(rows, length)`: the same ones for every member."""
    manifest, store = load_corpus(run.data), Store(run.data.corpus)
    return {name: first_rows(store, group.splits[split], count) for name, group in manifest.groups.items()}


def proportions(run: Run, groups: list[str]) -> np.ndarray:
    given = run.data.proportions
    return normalise([1.0 if given is None else given.get(group, 0.0) for group in groups])
