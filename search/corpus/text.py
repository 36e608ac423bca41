"""Read the rows on which members train and are judged, as a run's file says."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from shoal.cluster.storage import Store
from shoal.cluster.streams import RowStream
from shoal.policies.mixing import normalise
from shoal.search.config.run import Run
from shoal.search.corpus.batches import MixedBatches
from shoal.search.corpus.build import load_corpus
from shoal.search.corpus.held_out import sampled_rows
from shoal.search.corpus.manifest import Manifest
from shoal.search.corpus.streams import limits, open_streams
from shoal.trainables.forgetting import FORGOTTEN_ROWS

OpenStreams = Callable[[Run, Manifest], Mapping[str, RowStream]]
HeldOut = dict[str, dict[str, Any]]  # split -> group -> rows as `by_field` gives them


def text_of(run: Run, streams_of: OpenStreams = open_streams) -> tuple[Callable[[], MixedBatches], HeldOut]:
    """Return a function that makes a member's batches from streams that all share, and the held-out rows."""
    manifest = load_corpus(run.data)
    streams = streams_of(run, manifest)
    share, stop = proportions(run, list(streams)), run.data.exhausted == "stop"
    bounds = limits(run.data, manifest, streams)
    batches = partial(MixedBatches, streams, share, run.training.batch, bounds, stop, run.forgotten)
    return batches, held_out_of(run)


def held_out_of(run: Run) -> HeldOut:
    """Return split -> group -> rows; of groups that are to be forgotten also a sample of training rows."""
    count = run.training.evaluation_rows
    found = {split: sample_of(run, split, count) for split in ("validation", "test")}
    if run.forgotten:
        known = sample_of(run, "train", count)
        found[FORGOTTEN_ROWS] = {group: known[group] for group in run.forgotten}
    return found


def sample_of(run: Run, split: str, count: int) -> dict[str, Any]:
    """Return a sample of the rows of each group: the same ones for every member, and every run of a corpus."""
    manifest, store = load_corpus(run.data), Store(run.data.corpus)
    return {group: sampled_rows(store, manifest, group, split, count) for group in manifest.groups}


def proportions(run: Run, groups: list[str]) -> np.ndarray:
    given = run.data.proportions
    return normalise([1.0 if given is None else given.get(group, 0.0) for group in groups])
