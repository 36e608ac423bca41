"""A round's decision, wherever it is made: in the driver, or on the one worker that has all members."""

from collections.abc import Sequence

from shoal.policies.parts import decide_within
from shoal.policies.population import Order, PopulationState, Report
from shoal.policies.rules import LEFT_ALONE, Rules
from shoal.policies.schedule import keep_to
from shoal.policies.space import Space
from shoal.search.config.run import Run
from shoal.search.messages import Row


def report_of(row: Row) -> Report:
    """Return what a decision hears of a member's row."""
    return Report(row.member, row.step, row.score if row.scored or row.failed else None)


def decide_round(
    run: Run, space: Space, rules: Rules, state: PopulationState, reports: Sequence[Report], last: bool
) -> tuple[PopulationState, list[Order]]:
    """Decide by these rules, or as the run's schedule says.

    With `last` nothing trains any more: a copy would only lose the loser's own result, so nobody copies.
    """
    if run.schedule:
        return keep_to(run.scheduled(), state, reports)
    return decide_within(LEFT_ALONE if last else rules, space, state, reports, run.seed, run.parts)
