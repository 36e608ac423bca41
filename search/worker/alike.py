"""Whether members could copy one another at all, found out before they train."""

from collections.abc import Mapping

from shoal.policies.rules import LEFT_ALONE
from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.trainables.member import Member
from shoal.trainables.network import Network


def check_alike(run: Run, members: Mapping[int, Member]) -> None:
    """Raise InputError where members could not copy one another, since their weights differ in shape."""
    if run.rules() == LEFT_ALONE or run.parts > 1:
        return
    shapes = {
        number: {name: tuple(weight.shape) for name, weight in member.weights().items()}
        for number, member in members.items()
        if isinstance(member, Network)
    }
    first = next(iter(shapes), -1)
    for number, found in shapes.items():
        known = shapes[first]
        if apart := sorted(name for name in known.keys() | found.keys() if known.get(name) != found.get(name)):
            name = apart[0]
            raise InputError(
                f"hyperparameters: members {first} and {number} differ in the shape of {name} "
                f"({known.get(name)} and {found.get(name)}), so neither could copy the other: let no "
                f"hyperparameter shape the module, or set population.exploit: none"
            )
