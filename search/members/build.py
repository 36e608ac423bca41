"""Build the members that a run's file describes."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

from safetensors.numpy import load

from shoal.cluster.storage import Store
from shoal.search.config.mixing import PROBED
from shoal.search.config.run import Run
from shoal.search.config.score import BY_LOSS
from shoal.search.corpus.build import load_corpus
from shoal.search.corpus.questions import questions_of
from shoal.search.corpus.scores import read_kept_scores, read_scores
from shoal.search.corpus.streams import open_streams
from shoal.search.corpus.text import OpenStreams, sample_of, text_of
from shoal.search.errors import InputError
from shoal.search.exported import read_exported
from shoal.search.members.beginning import Beginning, begin_member
from shoal.search.members.classes import Made, class_of, exported_class, pretrained_class
from shoal.search.members.mixed import mixed_class
from shoal.search.members.sampled import sample_member
from shoal.search.members.unmade import Unmade
from shoal.search.members.views import Shared
from shoal.search.models import exported_pretrained, told_of
from shoal.trainables.batches import NoBatches
from shoal.trainables.member import Member
from shoal.trainables.network import Network
from shoal.trainables.reference import Reference
from shoal.trainables.settings import Recipe
from shoal.trainables.span import Span
from shoal.trainables.toy import Toy

Make = Callable[[int, dict[str, Any]], Member]  # a member's number and hyperparameters -> the member


def build_members(
    run: Run,
    hyperparameters: Mapping[int, dict[str, Any]],
    span: Span | None = None,
    shared: Shared | None = None,
    streams: OpenStreams = open_streams,
    begun: Beginning | None = None,  # weights of another run, with which all begin
) -> dict[int, Member]:
    """Build these members, each from its own seed; called on each worker that hosts or shares one.

    If making one raises, that member has failed, and not the run: its class may be the user's own.
    """
    rule: Any = run.sampling.rule and run.sampling.rule.build()
    scorer = run.sampling.scorer
    scores = read_scores(run.data, scorer) if scorer else None
    if run.sampling.score:
        scores = read_kept_scores(run.data, run.sampling.score)

    asked = questions_of(run)

    def complete(number: int, member: Member) -> Member:
        """Give a new member what its run says: weights, a price, a score, a policy for its rows, workers."""
        if run.begin is not None:
            begin_member(member, begun, run.begin)
        if run.price:
            assert isinstance(member, Network), "the file's check lets only these have a cost"
            member.price = run.price
        if run.score != BY_LOSS:
            assert isinstance(member, Network), "the file's check lets only these have another score"
            member.questions, member.group_weights = asked, run.score.groups
        leave_out(member, run)
        if rule is not None:
            sample_member(member, rule, run.seed, run.training.steps, number, shared, scores)
        if span is not None:
            span_workers(member, span)
        return member

    make = maker(run, streams)

    def again(number: int, values: dict[str, Any]) -> Member:
        return complete(number, make(number, values))

    members: dict[int, Any] = {}  # an `Unmade` has no settable `trained`
    for number, values in hyperparameters.items():
        try:
            member = make(number, values)
        except Exception as error:  # the user's own code may raise anything
            members[number] = Unmade(partial(again, number), error)
        else:
            members[number] = complete(number, member)
    return members


def leave_out(member: Any, run: Run) -> None:
    """Let the groups that are to be forgotten play no part in a member's score."""
    if run.forgotten:
        of_score = member.targets or list(load_corpus(run.data).groups)
        member.targets = [group for group in of_score if group not in run.forgotten]


def span_workers(member: Member, span: Span) -> None:
    if not isinstance(member, Network):
        raise InputError(
            f"cluster.workers_per_member: only a Network spans workers, not {type(member).__name__}"
        )
    member.spread(span)


def recipe_of(run: Run) -> Recipe:
    made: Recipe = run.training.build()
    return made


def maker(run: Run, streams: OpenStreams) -> Make:
    """Return the function that makes a run's members; what all of them share is opened once."""
    if run.trainable == "toy" and run.kind != "distill":
        return lambda number, values: Toy(values)
    if run.kind == "distill":
        from shoal.search.distill.members import maker_of_networks  # it loads transformers, which few runs need

        return maker_of_networks(run, *text_of(run, streams), run.device)
    made, recipe = class_of(run), recipe_of(run)
    if not run.takes_rows:
        return lambda number, values: made(recipe, deepcopy(values), run.member_seed(number), run.device)
    batches, held_out = text_of(run, streams)
    if run.mixing is not None:
        held_out[PROBED] = told_to_policy(run)
        made = with_policy(run, made)
    return lambda number, values: made(
        recipe, deepcopy(values), batches(), held_out, run.member_seed(number), run.device
    )


def told_to_policy(run: Run) -> dict[str, Any]:
    """Return the held-out rows of each target group on which a mixing policy measures losses."""
    assert run.mixing is not None
    told = sample_of(run, "validation", run.mixing.evaluation_rows or run.training.evaluation_rows)
    return {target: told[target] for target in mixed_groups(run).targets}


def mixed_groups(run: Run) -> Any:
    manifest = load_corpus(run.data)
    return run.groups_of({group: splits.splits["train"].rows for group, splits in manifest.groups.items()})


def with_policy(run: Run, made: Made) -> Made:
    """Return the class of members that choose their mixture as the run's section `mixing:` says."""
    assert run.mixing is not None
    return Made(
        mixed_class(made.of),
        {
            **made.constants,
            "mixing": run.mixing.build(list(load_corpus(run.data).groups)),
            "groups": mixed_groups(run),
            "reference": open_reference(run, run.mixing.reference) if run.mixing.reference else None,
        },
    )


def open_reference(run: Run, folder: str) -> Reference:
    """Load an exported model; all members on this worker are compared with this one copy."""
    if run.trainable == "causal_lm":
        given, config = exported_pretrained(folder), told_of("mixing.reference", folder)
        model: Any = pretrained_class(given)(recipe_of(run), {}, NoBatches(), {}, 0, run.device)
    else:
        config = read_exported("mixing.reference", folder)
        model = exported_class(run, config)(recipe_of(run), {}, NoBatches(), {}, 0, run.device)
        model.load_weights(load(Store(folder).read("model.safetensors")))
    return Reference(partial(model.parts, model.module.eval()), config["step"])
