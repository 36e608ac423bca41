"""Whether members could copy one another at all, found out before anybody copies."""

from collections.abc import Mapping

from shoal.cluster import mailbox
from shoal.policies.rules import LEFT_ALONE
from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.messages import Message, Shapes, unlike
from shoal.trainables.member import Member
from shoal.trainables.network import Network


def check_alike(run: Run, members: Mapping[int, Member]) -> Shapes:
    """Return the shapes of one of the members' weights, if all have the same; nothing where nobody copies.

    Raises InputError where members could not copy one another, since their weights differ in shape.
    """
    if run.rules() == LEFT_ALONE or run.parts > 1:
        return {}
    known: dict[int, Mapping[str, tuple[int, ...]]] = {}
    for number, member in members.items():
        if not isinstance(member, Network):
            continue
        found = {name: tuple(weight.shape) for name, weight in member.weights().items()}
        if problem := unlike({**known, number: found}):
            raise InputError(problem)
        known = known or {number: found}
    return known


def tell_shapes(run: Run, members: Mapping[int, Member], actor: object, brood: int) -> None:
    """Compare members here, and let the driver compare them with those of other workers."""
    shapes = check_alike(run, members)
    if shapes and run.hosts > 1:
        mailbox.send_report(actor, brood, Message(shapes=shapes))
