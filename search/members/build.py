"""What a run's configuration says its members are."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

from safetensors.numpy import load

from cluster.storage import Store
from search.config.mixing import PROBED
from search.config.run import Run
from search.corpus.build import load_corpus
from search.corpus.scores import read_scores
from search.corpus.text import first_of, text_of
from search.errors import InputError
from search.exported import read_exported
from search.members.mixed import MixedModel
from search.members.own_class import own_class
from search.members.sampled import sample
from search.members.views import Shared
from trainables.decoder import trained_decoder
from trainables.language import LanguageModel
from trainables.member import Member
from trainables.network import Network
from trainables.reference import Reference
from trainables.settings import Recipe, Shape
from trainables.span import Span
from trainables.toy import Toy


def build_members(
    run: Run,
    hyperparameters: Mapping[int, dict[str, Any]],
    span: Span | None = None,
    shared: Shared | None = None,
) -> dict[int, Member]:
    """Build these members, each from its own seed; called on a Ray Train worker, on all that a member spans."""
    members = plain_members(run, hyperparameters)
    if run.sampling.rule is not None:
        rule, scorer = run.sampling.rule.build(), run.sampling.scorer
        scores = read_scores(run.data, scorer) if scorer else None
        for number, member in members.items():
            sample(member, rule, run.seed, run.training.steps, number, shared, scores)
    if span is not None:
        spread(members, span)
    return members


def spread(members: Mapping[int, Member], span: Span) -> None:
    for member in members.values():
        if not isinstance(member, Network):
            raise InputError(
                f"cluster.workers_per_member: only a Network spans workers, not {type(member).__name__}"
            )
        member.spread(span)


def plain_members(run: Run, hyperparameters: Mapping[int, dict[str, Any]]) -> dict[int, Member]:
    if run.trainable == "toy":
        return {number: Toy(values) for number, values in hyperparameters.items()}
    if run.kind == "distill":
        from search.distill.members import super_networks  # which needs this module

        return super_networks(run, hyperparameters, *text_of(run), run.device)
    recipe = Recipe(**run.training.model_dump(include=set(Recipe.__dataclass_fields__)))
    if run.reads_text:
        return language_models(run, recipe, hyperparameters)
    make = own_class(run.trainable)
    return {
        number: make(recipe, deepcopy(values), run.member_seed(number), run.device)
        for number, values in hyperparameters.items()
    }


def language_models(
    run: Run, recipe: Recipe, hyperparameters: Mapping[int, dict[str, Any]]
) -> dict[int, Member]:
    """Build decoders that share one stream of rows a group."""
    manifest, (batches, held_out) = load_corpus(run.data), text_of(run)
    shape = Shape(
        vocabulary=manifest.vocabulary,
        sequence_length=run.data.sequence_length,
        **run.model.model_dump(),
    )
    make: Callable[..., Member] = LanguageModel
    if run.mixing is not None:
        rows = {group: splits.splits["train"].rows for group, splits in manifest.groups.items()}
        groups = run.groups_of(rows)
        told = first_of(run, "validation", run.mixing.evaluation_rows or run.training.evaluation_rows)
        held_out[PROBED] = {target: told[target] for target in groups.targets}
        make = partial(
            MixedModel,
            mixing=run.mixing.build(list(rows)),
            groups=groups,
            reference=open_reference(run, run.mixing.reference, run.device) if run.mixing.reference else None,
        )
    return {
        number: make(shape, recipe, values, batches(), held_out, run.member_seed(number), run.device)
        for number, values in hyperparameters.items()
    }


def open_reference(run: Run, folder: str, device: str) -> Reference:
    """Load an exported model to compare members with, which share it."""
    config = read_exported("mixing.reference", folder)
    weights = load(Store(folder).read("model.safetensors"))
    return Reference(
        trained_decoder(Shape(**config["shape"]), weights, run.data.sequence_length, device), config["step"]
    )
