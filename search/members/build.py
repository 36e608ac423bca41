"""Build the members that a run's file describes."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

from safetensors.numpy import load

from shoal.cluster.storage import Store
from shoal.search.config.mixing import PROBED
from shoal.search.config.run import Run
from shoal.search.corpus.build import load_corpus
from shoal.search.corpus.scores import read_scores
from shoal.search.corpus.text import sample_of, text_of
from shoal.search.errors import InputError
from shoal.search.exported import read_exported
from shoal.search.members.mixed import MixedModel
from shoal.search.members.own_class import own_class
from shoal.search.members.sampled import sample_member
from shoal.search.members.unmade import Unmade
from shoal.search.members.views import Shared
from shoal.trainables.decoder import trained_decoder
from shoal.trainables.language import LanguageModel
from shoal.trainables.member import Member
from shoal.trainables.network import Network
from shoal.trainables.reference import Reference
from shoal.trainables.settings import DecoderShape, Recipe
from shoal.trainables.span import Span
from shoal.trainables.toy import Toy


def build_members(
    run: Run,
    hyperparameters: Mapping[int, dict[str, Any]],
    span: Span | None = None,
    shared: Shared | None = None,
) -> dict[int, Member]:
    """Build these members, each from its own seed; called on each worker that hosts or shares one."""
    rule: Any = run.sampling.rule and run.sampling.rule.build()
    scorer = run.sampling.scorer
    scores = read_scores(run.data, scorer) if scorer else None

    def complete(number: int, member: Member) -> Member:
        """Put a policy between a new member and its rows, and let it span workers, as the run says."""
        if rule is not None:
            sample_member(member, rule, run.seed, run.training.steps, number, shared, scores)
        if span is not None:
            span_workers(member, span)
        return member

    if run.own:
        return own_members(run, hyperparameters, complete)
    members = plain_members(run, hyperparameters)
    return {number: complete(number, member) for number, member in members.items()}


def span_workers(member: Member, span: Span) -> None:
    if not isinstance(member, Network):
        raise InputError(
            f"cluster.workers_per_member: only a Network spans workers, not {type(member).__name__}"
        )
    member.spread(span)


def own_members(
    run: Run, hyperparameters: Mapping[int, dict[str, Any]], complete: Callable[[int, Member], Member]
) -> dict[int, Member]:
    """Make members of the user's own class; if making one raises, that member has failed, and not the run."""
    of_class, recipe = own_class(run.trainable, run.code), recipe_of(run)

    def make(number: int, values: dict[str, Any]) -> Member:
        return of_class(recipe, deepcopy(values), run.member_seed(number), run.device)

    def complete_one(number: int, values: dict[str, Any]) -> Member:
        return complete(number, make(number, values))

    members: dict[int, Any] = {}
    for number, values in hyperparameters.items():
        try:
            member = make(number, values)
        except Exception as error:  # the user's own code may raise anything
            members[number] = Unmade(partial(complete_one, number), error)
        else:
            members[number] = complete(number, member)
    return members


def recipe_of(run: Run) -> Recipe:
    made: Recipe = run.training.build()
    return made


def plain_members(run: Run, hyperparameters: Mapping[int, dict[str, Any]]) -> dict[int, Member]:
    if run.trainable == "toy":
        return {number: Toy(values) for number, values in hyperparameters.items()}
    if run.kind == "distill":
        from shoal.search.distill.members import super_networks  # imported late: it imports this module

        return super_networks(run, hyperparameters, *text_of(run), run.device)
    return language_models(run, recipe_of(run), hyperparameters)


def language_models(
    run: Run, recipe: Recipe, hyperparameters: Mapping[int, dict[str, Any]]
) -> dict[int, Member]:
    """Build decoders that share one stream of rows for each group."""
    manifest, (batches, held_out) = load_corpus(run.data), text_of(run)
    shape = DecoderShape(
        vocabulary=manifest.vocabulary,
        sequence_length=run.data.sequence_length,
        **run.model.model_dump(),
    )
    make: Callable[..., Member] = LanguageModel
    if run.mixing is not None:
        rows = {group: splits.splits["train"].rows for group, splits in manifest.groups.items()}
        groups = run.groups_of(rows)
        told = sample_of(run, "validation", run.mixing.evaluation_rows or run.training.evaluation_rows)
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
    """Load an exported model; all members on this worker are compared with this one copy."""
    config = read_exported("mixing.reference", folder)
    weights = load(Store(folder).read("model.safetensors"))
    return Reference(
        trained_decoder(DecoderShape(**config["shape"]), weights, run.data.sequence_length, device),
        config["step"],
    )
