"""What must hold of a population: its size, its rule, its rounds, and what its members vary."""

import math

from shoal.search.checks.declared import constant_of
from shoal.search.checks.values import SPACES
from shoal.search.config.kinds import SpaceWithin
from shoal.search.config.run import Run
from shoal.search.errors import nearest


def check_population(run: Run) -> str:
    chosen, exploit = run.population, run.population.exploit
    if chosen.cull and chosen.cull.grace >= run.training.steps:
        return (
            f"population.cull.grace: must be less than training.steps ({run.training.steps}), or no member "
            f"would come to a rung, got {chosen.cull.grace}"
        )
    if exploit.kind == "none":
        return ""
    size, who = compared(run)
    if size < 2:
        of_each = f" of each {run.part_named}" * (run.parts > 1)
        return (
            f"population.members: exploit needs at least 2 members{of_each}, got {size}; add members or set "
            f"population.exploit: none"
        )
    if chosen.burn_in >= run.training.steps:
        return (
            f"population.burn_in: must be less than training.steps ({run.training.steps}), or no member "
            f"would ever copy, got {chosen.burn_in}"
        )
    if chosen.least > size:
        return f"population.least: must be at most population.members ({who}), got {chosen.least}"
    if not run.hyperparameters:
        return "hyperparameters: exploit needs at least one to vary; name one or set population.exploit: none"
    return ""


def compared(run: Run) -> tuple[int, str]:
    """Return how many members are compared with one another, those of a part, and words for it."""
    each, parts = run.population.members // run.parts, run.parts
    return each, str(each) if parts == 1 else f"the {each} members of a {run.part_named}"


def check_exploit(run: Run) -> str:
    """Refuse a rule that would never do its work in this run."""
    exploit, (size, who) = run.population.exploit, compared(run)
    if exploit.kind == "truncation" and size > 1 and exploit.build().tail(size) < 1:
        of = f"{who} members" if run.parts == 1 else who
        return (
            f"population.exploit.fraction: {exploit.fraction:g} of {of} is less than one "
            f"member, so no member would ever copy; use at least {math.ceil(1000 / size) / 1000:g}"
        )
    if exploit.kind == "multiple_frequency" and size < 4 * len(exploit.frequencies):
        return (
            f"population.exploit.frequencies: each of {len(exploit.frequencies)} needs 4 members, so that a "
            f"quarter is one member, but copies are among {who}"
        )
    if exploit.kind == "multiple_frequency" and max(exploit.frequencies) >= max(run.rounds, 2):
        # no decision follows the last interval, so there is one fewer than rounds
        return (
            f"population.exploit.frequencies: a part that evolves at every {max(exploit.frequencies)}th "
            f"decision never does in the {run.rounds - 1} decisions of {run.training.steps} steps"
        )
    if exploit.kind == "fire" and size < 12:
        return (
            f"population.exploit: fire needs 12 members, so that a quarter of the parents, a third of all, "
            f"is one member, but copies are among {who}"
        )
    if exploit.kind == "fire" and exploit.patience > run.rounds - 2:
        return (
            f"population.exploit.patience: evaluators of {exploit.patience} decisions are not judged within "
            f"the {run.rounds - 1} decisions of {run.training.steps} steps"
        )
    return ""


def check_interval(run: Run) -> str:
    steps, interval = run.training.steps, run.population.interval
    if interval > steps:
        return f"population.interval: must be at most training.steps ({steps}), got {interval}"
    if steps % interval:
        return (
            f"population.interval: must divide training.steps ({steps}), got {interval}; "
            f"{steps - steps % interval} steps would do"
        )
    return ""


def check_mode(run: Run) -> str:
    free, back = run.population.mode == "asynchronous", run.population.backtrack
    if free and run.population.exploit.kind in ("multiple_frequency", "fire"):
        return (
            f"population.exploit: {run.population.exploit.kind} decides about whole parts of the population at "
            f"once; it needs population.mode: synchronous"
        )
    if free and back:
        return "population.backtrack: needs population.mode: synchronous"
    if (free or back) and run.checkpoint.every != 1:
        why = (
            "population.mode: asynchronous, since each member is saved when it is ready"
            if free
            else "population.backtrack, which takes earlier weights from their checkpoint"
        )
        return f"checkpoint.every: must be 1 with {why}, got {run.checkpoint.every}"
    return ""


def check_schedule(run: Run) -> str:
    if not run.schedule:
        return ""
    if run.population.exploit.kind != "none" or run.hyperparameters:
        return "schedule: stands in place of hyperparameters, and needs population.exploit: none"
    starts = [entry.from_step for entry in run.schedule]
    if starts[0] or starts != sorted(set(starts)):
        return f"schedule: from_step must begin with 0 and rise, got {starts}"
    odd = [start for start in starts if start % run.population.interval]
    if odd:
        interval = run.population.interval
        return f"schedule: from_step must be a multiple of population.interval ({interval}), got {odd[0]}"
    if starts[-1] >= run.training.steps:
        return (
            f"schedule: from_step must be less than training.steps ({run.training.steps}), or the entry would "
            f"never hold, got {starts[-1]}"
        )
    return ""


def check_hyperparameters(run: Run) -> str:
    if run.described.hyperparameters is None:
        return ""  # only the user's own class knows its hyperparameters
    kind = "distill" if run.kind == "distill" else run.trainable.rpartition(":")[2]
    known = {*run.described.hyperparameters, *(["mixing"] if run.mixing else [])}
    known |= {"sampling"} if run.sampling.rule else set()
    searched = {"hyperparameters": set(run.hyperparameters)}
    scheduled = {f"schedule.{place}": set(entry.hyperparameters) for place, entry in enumerate(run.schedule)}
    begun = {f"starts.{place}": set(entry.hyperparameters) for place, entry in enumerate(run.starts)}
    fixed = {"population.parts": set(run.population.parts)}
    for place, names in ((begun or scheduled or searched) | fixed).items():
        for name in sorted(names - known):
            if name in run.described.constants:
                return f"{place}.{name}: {constant_of(run)}"
            return f"{place}.{name}: {kind} has no such hyperparameter{nearest(name, known)}"
        for name in names:
            if name not in SPACES and isinstance(run.hyperparameters.get(name), SpaceWithin):
                return f"{place}.{name}: must be a domain; only a class of your own takes a space under a name"
        if (
            run.trainable == "toy"
            and place != "population.parts"
            and names | fixed["population.parts"] != known
        ):
            return f"{place}: the toy needs {' and '.join(sorted(known))}"
    return ""


def check_starts(run: Run) -> str:
    if run.starts and (len(run.starts) != run.population.members or run.schedule or run.hyperparameters):
        return (
            f"starts: stand in place of hyperparameters and schedule, one for each of {run.population.members} "
            f"members, got {len(run.starts)}"
        )
    return ""
