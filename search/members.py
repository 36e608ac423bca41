"""What a run's configuration says its members are."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray import train

from cluster.storage import Store
from cluster.streams import RowOrder, RowStream, blocks_of
from policies.mixing import normalise
from search.config import Run
from search.corpus.batches import MixedBatches, file_rows, first_rows
from search.corpus.build import load_corpus
from search.own import own_class
from trainables.language import LanguageModel
from trainables.member import Member
from trainables.settings import Recipe, Shape
from trainables.toy import Toy

HeldOut = dict[str, dict[str, NDArray[np.uint16]]]


def build_members(run: Run, hyperparameters: Mapping[int, dict[str, Any]]) -> dict[int, Member]:
    """Build these members, each from its own seed; called on a Ray Train worker."""
    if run.trainable == "toy":
        return {number: Toy(values) for number, values in hyperparameters.items()}
    device = "cuda" if run.cluster.gpus_per_worker else "cpu"
    if run.kind == "distill":
        from search.distill.members import super_networks

        return super_networks(run, hyperparameters, *text_of(run), device)
    recipe = Recipe(**run.training.model_dump(include=set(Recipe.__dataclass_fields__)))
    if run.reads_text:
        return language_models(run, recipe, hyperparameters, device)
    make = own_class(run.trainable)
    return {
        number: make(recipe, values, member_seed(run, number), device)
        for number, values in hyperparameters.items()
    }


def text_of(run: Run) -> tuple[dict[str, RowStream], HeldOut]:
    """Return one stream of training rows a group, which members share, and the held-out rows of each split."""
    manifest = load_corpus(run.data)
    streams = {
        group: RowStream(
            blocks_of(train.get_dataset_shard(group)),
            RowOrder(group, file_rows(splits.splits["train"]), run.seed),
            run.data.sequence_length,
        )
        for group, splits in manifest.groups.items()
    }
    return streams, held_out_rows(run)


def held_out_rows(run: Run) -> HeldOut:
    """Return split -> group -> the first rows `(rows, length)`: the same ones for every member."""
    manifest, store = load_corpus(run.data), Store(run.data.corpus)
    return {
        split: {
            name: first_rows(store, group.splits[split], run.training.evaluation_rows)
            for name, group in manifest.groups.items()
        }
        for split in ("validation", "test")
    }


def language_models(
    run: Run, recipe: Recipe, hyperparameters: Mapping[int, dict[str, Any]], device: str
) -> dict[int, Member]:
    """Build decoders that share one stream of rows a group."""
    streams, held_out = text_of(run)
    shape = Shape(
        vocabulary=load_corpus(run.data).vocabulary,
        sequence_length=run.data.sequence_length,
        **run.model.model_dump(),
    )
    return {
        number: LanguageModel(
            shape,
            recipe,
            values,
            MixedBatches(streams, proportions(run, list(streams)), run.training.batch),
            held_out,
            member_seed(run, number),
            device,
        )
        for number, values in hyperparameters.items()
    }


def member_seed(run: Run, number: int) -> int:
    return int(np.random.SeedSequence([run.seed, 1, run.root + number]).generate_state(1)[0])


def proportions(run: Run, groups: list[str]) -> np.ndarray:
    given = run.data.proportions
    return normalise([1.0 if given is None else given.get(group, 0.0) for group in groups])
