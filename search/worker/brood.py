"""What runs on a Ray Train worker: a brood's members train, report, and follow orders."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from ray import train

from shoal.cluster import checkpoints, mailbox, workers
from shoal.cluster.lease import StandingStore
from shoal.cluster.metrics import CLOCK, Meter
from shoal.cluster.storage import Store
from shoal.policies import population
from shoal.policies.population import Order, PopulationState
from shoal.search.config.run import Run
from shoal.search.members.build import build_members
from shoal.search.members.ledger import way_to_ledger
from shoal.search.members.views import Shared
from shoal.search.messages import Message, OnTestRows, Row
from shoal.search.records.beginning import begun_with
from shoal.search.worker.alike import tell_shapes
from shoal.search.worker.asynchronous import train_freely
from shoal.search.worker.guarded import LOST, loaded, on_test_rows, taken, trained_by
from shoal.search.worker.orders import way_to_orders
from shoal.search.worker.spent import CHECKPOINT, EXPLOIT, Spent
from shoal.search.worker.teams import Team, failed_row, teams
from shoal.search.worker.work import Work
from shoal.trainables.handover import handed_out
from shoal.trainables.member import Member, SavedState
from shoal.trainables.network import Network
from shoal.trainables.span import Span, open_span

Members = dict[int, Member]
LARGE = 1 << 27  # bytes of trained weights above which a state is not copied to be written
Failed = dict[int, str]  # member -> the error that is not yet reported; "" once it is


def host_members(work: Work, actor: Any, brood: int) -> None:
    run, state = work.run, work.state
    span = span_of(run)
    store = StandingStore(run.directory)
    torch.set_num_threads(work.threads)
    shared = way_to_ledger(work.ledger, run, brood)
    if run.population.mode == "asynchronous":
        mine = hosted(run, brood, train.get_context().get_world_rank())
        trained: tuple[Members, Collection[int]] | None = train_freely(
            run, store, actor, brood, {number: state[number].hyperparameters for number in mine}
        )
    else:
        trained = train_in_rounds(run, store, actor, brood, state, span, shared, work.over)
    if trained is None:
        return
    members, failed = trained
    well = {number: on_test_rows(member) for number, member in members.items() if number not in failed}
    tests = dict.fromkeys(members, OnTestRows()) | well
    if leads(span):
        mailbox.send_report(actor, brood, Message(tests=tests))


def train_in_rounds(
    run: Run,
    store: Store,
    actor: Any,
    brood: int,
    state: PopulationState,
    span: Span | None,
    shared: Shared | None,
    over: bool,
) -> tuple[Members, Collection[int]] | None:
    """Train members in step with all others; return them and who has failed, or None if the run ends before."""
    resumed, state, members, failed = begin(run, store, actor, brood, state, span, shared)
    way = way_to_orders(run, state, resumed, actor, brood, told=shared is not None or run.stop is not None)
    found, writer = teams(members, run.cluster.stack, run.cluster.compile), checkpoints.Writer(store)
    meter, direct = Meter(run.label), mailbox.direct_way(torch.zeros(1, device=run.device), run.cluster.direct)
    spent = Spent()
    for round_ in range(resumed + 1, run.rounds + 1):
        if over or any(team.ends() for team in found):  # before this worker began
            break
        with CLOCK.phase("compute"):
            rows = train_teams(found, run.population.interval, failed)
        failed = {row.member: "" for row in rows if row.failed}
        # the round before is whole before this one counts: a killed run loses no more than one interval
        with CLOCK.phase("checkpoint"), spent.on(CHECKPOINT, members):
            writer.wait()
        rows = [spent.added(row) for row in rows]
        with CLOCK.phase("exchange"):
            leaving = run.cluster.spot and workers.leaving()
            if span:
                span.meet()
            rows = placed(run, round_, brood, members, rows)
            message = Message(rows, leaving=leaving) if leads(span) else None
            orders = way.next(round_, message)
            if orders is None:
                return None
            told = {order.member for order in orders} & members.keys()
            with spent.on(EXPLOIT, told):
                copies = follow(actor, round_, orders, found, place_in(span), archive(store, span), direct)
            failed = after_copies(failed, copies)
        CLOCK.flush(meter)
        if leaving or way.over or round_ % run.checkpoint.every == 0 or round_ == run.rounds:
            for number, member in members.items() if run.shares > 1 or leads(span) else ():
                with spent.on(CHECKPOINT, [number]):
                    failed |= save(writer, round_, number, member, part_of(span))
        if leaving:
            writer.wait()  # the node may be gone before the next interval ends
        if way.over:
            break
    writer.wait()
    return (members, failed) if way.settle() else None


def placed(run: Run, round_: int, brood: int, members: Members, rows: Sequence[Row]) -> list[Row]:
    """Return the rows with their place. Where rows have ended, a member's row already has its step."""
    due, back = round_ * run.population.interval, run.population.backtrack
    # a member that went back to earlier weights is younger than its round
    steps = [trained_by(members[row.member]) if back else row.step or due for row in rows]
    return [row._replace(round=round_, step=step, brood=brood) for row, step in zip(rows, steps, strict=True)]


def span_of(run: Run) -> Span | None:
    """Return the workers that this one's members span, if there are others."""
    size = run.cluster.workers_per_member
    return None if size == 1 else open_span(size, run.cluster.span == "fsdp", run.device)


def leads(span: Span | None) -> bool:
    """Say whether this worker speaks for its members."""
    return span is None or span.rank == 0


def place_in(span: Span | None) -> int:
    """Return a worker's place among those that its members span."""
    return 0 if span is None else span.rank


def part_of(span: Span | None) -> checkpoints.Part:
    """Return which file of a member this worker writes and reads."""
    return (span.rank, span.size) if span is not None and span.sharded else checkpoints.WHOLE


def begin(
    run: Run,
    store: Store,
    actor: Any,
    brood: int,
    state: PopulationState,
    span: Span | None,
    shared: Shared | None,
) -> tuple[int, PopulationState, Members, Failed]:
    """Return the round that this worker's members have reached, the population's state then, the members, and
    which of them have failed. Without a checkpoint that state is the given one.

    All workers of a brood begin with the same round, since they hand weights to one another.
    """
    context = train.get_context()
    mine = hosted(run, brood, context.get_world_rank())
    of_brood = [number for rank in range(context.get_world_size()) for number in hosted(run, brood, rank)]
    resumed = checkpoints.latest(store, of_brood, run.shares)
    if resumed is not None:
        state = population.from_plain(checkpoints.load_decisions(store, resumed)["members"])
    values = {number: state[number].hyperparameters for number in mine}
    members = build_members(run, values, span, shared, begun=begun_with(run) if resumed is None else None)
    if resumed is None:
        if leads(span):
            tell_shapes(run, members, actor, brood)
        return 0, state, members, {}
    # a clone has no score yet
    failed = {
        number: "" for number in mine if np.isnan(0.0 if (score := state[number].score) is None else score)
    }
    for number, member in members.items():
        saved = checkpoints.load_member(store, resumed, number, part_of(span))
        if error := loaded(member, saved, state[number].hyperparameters):
            failed[number] = error
    return resumed, state, members, failed


def after_copies(failed: Failed, copies: Mapping[int, str]) -> Failed:
    """Return who has failed after members got a new start, of whom some could not take it."""
    still = {number: error for number, error in failed.items() if number not in copies}
    return still | {number: error for number, error in copies.items() if error}


def hosted(run: Run, brood: int, rank: int) -> list[int]:
    """Return the members of a brood's worker: they are dealt out in turn to all places where members live."""
    each = run.workers_per_brood // run.cluster.workers_per_member
    place = brood * each + rank // run.cluster.workers_per_member
    return list(range(place, run.population.members, run.hosts))


def train_teams(found: Sequence[Team], steps: int, failed: Failed) -> list[Row]:
    """Train all members for an interval and return their rows; those that have failed stay as they are."""
    rows: dict[int, Row] = {}
    for team in found:
        if not team.members.keys() <= failed.keys():
            rows |= team.train(steps)
        lost = team.members.keys() & failed.keys()
        rows |= {number: failed_row(number, team.members[number], failed[number]) for number in lost}
    return list(rows.values())


def archive(store: Store, span: Span | None) -> Callable[[Order], Any]:
    """Return what loads the weights of an earlier decision: the donor's checkpoint of then."""

    def load(order: Order) -> Any:
        assert order.decision is not None
        return checkpoints.load_member(store, order.decision, order.donor, part_of(span))

    return load


def follow(
    actor: Any,
    round_: int,
    orders: Sequence[Order],
    found: Sequence[Team],
    part: int = 0,
    earlier: Callable[[Order], Any] | None = None,
    direct: bool = False,
) -> dict[int, str]:
    """Hand over what workers elsewhere need, then copy; return the members that were given a new start.

    Beside each stands the error if it could not take it. A donor that gives no state has all of its
    receivers fail, and itself.
    Of members that span workers each worker gives to, and takes from, the one in the same place.
    """
    members = {number: member for team in found for number, member in team.members.items()}
    back = [order for order in orders if order.decision is not None and order.member in members]
    orders = [order for order in orders if order.decision is None]
    left = [order for order in orders if not any(team.holds(order) for team in found)]
    # taken before any copy: a donor may itself be told to copy, but gives what it reported with
    donors = {order.donor for order in left} & set(members)
    # large ones are not copied, as long as nobody overwrites them here
    still = donors - {order.member for order in orders}
    states = {
        donor: taken(members[donor], partial(snapshot, direct=direct, still=donor in still)) for donor in donors
    }
    for donor in {order.donor for order in left if order.member not in members} & donors:
        # a state without tensors cannot go by NIXL
        way = direct and may_stay(members[donor]) and LOST not in states[donor]
        mailbox.post_weights(actor, (round_, donor, part), states[donor], way)
    errors = {donor: str(state[LOST]) for donor, state in states.items() if LOST in state}
    for team in found:
        inside = [order for order in orders if team.holds(order)]
        if error := team.copy(inside):
            errors |= {order.member: error for order in inside}
    for order in left:
        if order.member in members:
            state = states.get(order.donor) or mailbox.take_weights(actor, (round_, order.donor, part))
            errors[order.member] = loaded(members[order.member], state, order.hyperparameters)
    for order in back:
        assert earlier is not None
        errors[order.member] = loaded(members[order.member], earlier(order), order.hyperparameters)
    told = {order.member for order in (*orders, *back)} & set(members)
    return dict.fromkeys(told, "") | errors


def snapshot(member: Member, direct: bool, still: bool = False) -> SavedState:
    """Return a copy of a member's state, if it may with its tensors left on their device.

    A large member that stays `still` until its state is used gives the state as it lies in memory.
    """
    if isinstance(member, Network) and may_stay(member):
        if direct:
            return member.state_in_place()
        if still and is_large(member):
            return member.state_as_it_lies()
    return handed_out(member.state)


def save(
    writer: checkpoints.Writer, round_: int, number: int, member: Member, part: checkpoints.Part
) -> Failed:
    """Write a member's checkpoint beside the training that goes on, or at once where a copy were too large.

    Return the error of a member that gave no state.
    """
    at_once = isinstance(member, Network) and may_stay(member) and is_large(member)
    state = taken(member, partial(snapshot, direct=False, still=True))
    (writer.save_now if at_once else writer.save)(round_, number, state, part)
    return {number: str(state[LOST])} if LOST in state else {}


def is_large(member: Network) -> bool:
    return sum(weight.nbytes for weight in member.weights().values()) > LARGE


def may_stay(member: Member) -> bool:
    """Say whether a member's tensors may stay on their device; what a class adds to its state may not."""
    return type(member).state is Network.state
