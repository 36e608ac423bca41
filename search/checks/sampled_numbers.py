"""The numbers of a sampling rule that a population searches, `hyperparameters.sampling`; and kept scores."""

from dataclasses import fields, replace
from typing import Any

from shoal.search.checks.values import ends
from shoal.search.config.kinds import SpaceWithin
from shoal.search.config.run import Run
from shoal.search.errors import nearest

SECTION = "sampling"


def chosen_by_place(run: Run) -> dict[str, Any]:
    """Return the domains, scheduled and first values of a run's hyperparameters, by their place in the file."""
    found: dict[str, Any] = {"hyperparameters": run.hyperparameters}
    found |= {f"schedule.{place}": entry.hyperparameters for place, entry in enumerate(run.schedule)}
    return found | {f"starts.{place}": entry.hyperparameters for place, entry in enumerate(run.starts)}


def check_sampled_numbers(run: Run) -> str:
    """Return which domain, scheduled or first value of a rule's number cannot be, or nothing."""
    for place, values in chosen_by_place(run).items():
        if SECTION in values and (problem := check_within(run, values[SECTION])):
            return f"{place}.{SECTION}{problem}"
    return ""


def check_within(run: Run, space: Any) -> str:
    if run.own and not run.described.network:
        return ""  # only the class knows what it takes under this name
    if run.sampling.rule is None:
        return ": searches a sampling rule's numbers, but there is no sampling.rule"
    rule, kind = run.sampling.rule.build(), run.sampling.rule.kind
    if rule.spec.cadence == "step":
        return f": {kind} weighs within a step, where its numbers are constants; search a rule that keeps rows"
    values = space.root if isinstance(space, SpaceWithin) else space
    if not isinstance(values, dict):
        return ": must hold domains by name, such as `share: {kind: float, low: 0.1, high: 1}`"
    known = [field.name for field in fields(rule)]
    for name, domain in values.items():
        if name not in known:
            return f".{name}: {kind} has no such number{nearest(name, known)}"
        if isinstance(domain, SpaceWithin):
            return f".{name}: must be a domain"
        for value in ends(domain):
            try:
                replace(rule, **{name: value})
            except (ValueError, TypeError) as error:
                return f".{name}: {str(error).rstrip('.')}"
    return ""


def check_kept_score(run: Run) -> str:
    """Return why a kept score cannot be read, as far as the file shows it."""
    if run.sampling.scorer:
        return "sampling.score: give scorer or score, not both"
    if run.selection is None:
        return "sampling.score: names a score that `selection:` keeps beside the rows, but there is none"
    had = run.selection.columns()
    names = names_of(run.sampling.score)
    for score in names:
        if had is not None and score not in had:
            return f"sampling.score: selection.scores make no {score}{nearest(score, had)}"
    rule = run.sampling.rule
    if len(names) > 1 and rule is not None and not hasattr(rule.build(), "blend"):
        return f"sampling.score: {rule.kind} goes by one score, got {', '.join(names)}"
    searched = run.hyperparameters.get(SECTION)
    values = searched.root if isinstance(searched, SpaceWithin) else {}
    if len(names) < 2 and rule is not None and (bool(getattr(rule.build(), "blend", 0)) or "blend" in values):
        return "sampling.rule.blend: weighs the second of two scores, as in `score: [loss, length]`"
    return ""


def names_of(score: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the names of the kept scores that a rule goes by."""
    return () if score is None else (score,) if isinstance(score, str) else score
