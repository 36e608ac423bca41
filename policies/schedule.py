"""A schedule found by a population, followed by members that are left alone."""

from collections.abc import Sequence
from typing import NamedTuple

from shoal.policies.population import Order, PopulationState, Report
from shoal.policies.space import Hyperparameters


class Setting(NamedTuple):
    """Hyperparameters that hold after `from_step`, until the next setting's."""

    from_step: int
    hyperparameters: Hyperparameters


def setting_at(schedule: Sequence[Setting], step: int) -> Hyperparameters:
    """Return what the step after `step` is trained under."""
    return [setting for setting in schedule if setting.from_step <= step][-1].hyperparameters


def keep_to(
    schedule: Sequence[Setting], state: PopulationState, reports: Sequence[Report]
) -> tuple[PopulationState, list[Order]]:
    """Tell each reporting member to go on from its own weights under what the schedule says from here."""
    members, orders = list(state), []
    for report in sorted(reports, key=lambda report: report.member):
        known, due = members[report.member], setting_at(schedule, report.step)
        if due != known.hyperparameters:
            orders.append(Order(report.member, report.member, due))
        members[report.member] = known._replace(
            hyperparameters=due,
            score=known.score if report.score is None else report.score,
            step=report.step,
            decisions=known.decisions + 1,
        )
    return tuple(members), orders
