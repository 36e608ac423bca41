"""Calls of a member's own code that may raise: its class may be the user's, and only that member fails then.

An error comes back as its trace; "" means that there was none.
"""

import traceback
from collections.abc import Callable, Mapping
from typing import Any

from shoal.search.messages import OnTestRows
from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.member import Member, SavedState
from shoal.trainables.network import Network

LOST = "lost"  # the key under which a state that could not be had says why


def lost_state(error: str) -> SavedState:
    """Return what stands in for the state of a member that gave none."""
    return {"weights": {}, "trained": 0, LOST: error}


def taken(member: Member, take: Callable[[Member], SavedState] | None = None) -> SavedState:
    """Return a copy of a member's state, or what stands in for it."""
    try:
        return take(member) if take else handed_out(member.state)
    except Exception:
        return lost_state(traceback.format_exc())


def loaded(member: Member, state: SavedState, hyperparameters: Mapping[str, Any]) -> str:
    """Load a state into a member; return the error, which is the donor's own if it gave no state."""
    if LOST in state:
        return str(state[LOST])
    try:
        hand_in(member.load, state, hyperparameters)
    except Exception:
        return traceback.format_exc()
    return ""


def on_test_rows(member: Member) -> OnTestRows:
    """Return what a member comes to on the rows of the test split."""
    try:
        score, losses = member.evaluate("test")
        errors = dict(getattr(member, "loss_errors", {}))
        return OnTestRows(dict(losses), less_price(member, score), measured(member, "test"), errors)
    except Exception:
        return OnTestRows(error=traceback.format_exc())


def cost_of_member(member: Member) -> float | None:
    """Return what a member's settings cost, as a share of the dearest, if any of them has a cost."""
    return member.cost if isinstance(member, Network) else None


def less_price(member: Member, score: float) -> float:
    """Return a score that is still without its price, with it."""
    price = member.price if isinstance(member, Network) else 0.0
    return float(score) - price * (cost_of_member(member) or 0.0) if price else float(score)


def measured(member: Member, split: str = "validation") -> dict[str, float]:
    """Return what a member's class measures beside its losses, if it does; raises what its code raises."""
    return member.measure(split) | member.float32_score(split) if isinstance(member, Network) else {}


def trained_by(member: Member) -> int:
    """Return how many steps a member says that its weights have trained, or 0 if it cannot tell."""
    try:
        return int(member.trained)
    except Exception:
        return 0
