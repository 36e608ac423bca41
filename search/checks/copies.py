"""Settings under which nobody could ever copy: a search that finds nothing is refused before it trains."""

import math

from shoal.search.config.run import Run

PARTS = ("fire", "multiple_frequency")  # rules that keep parts of the population apart


def check_copies(run: Run) -> str:
    """Return why no decision of this run could lead to a copy, or what it would copy against its own rule."""
    chosen, steps = run.population, run.training.steps
    if (
        (chosen.exploit.kind == "none" and not chosen.cull)
        or chosen.interval > steps
        or steps % chosen.interval
    ):
        return ""
    if run.rounds == 1:
        return (
            f"population.interval: must be less than training.steps ({steps}), or nothing would be trained "
            f"after the only decision, got {chosen.interval}; use a smaller one or set population.exploit: none"
        )
    if chosen.backtrack and chosen.exploit.kind in PARTS:
        return (
            f"population.backtrack: copies the best weights that the whole population ever had, but "
            f"{chosen.exploit.kind} keeps parts of it apart; leave one of them out"
        )
    # without rounds a member may decide at other steps
    return check_deviations(run) or ("" if chosen.mode == "asynchronous" else check_burn_in(run))


def check_deviations(run: Run) -> str:
    """Refuse a threshold beyond which no member can lie: of n numbers none is further than sqrt(n - 1)."""
    exploit, size = run.population.exploit, run.population.members // run.parts
    if exploit.kind != "threshold" or size < 2 or exploit.deviations < math.sqrt(size - 1):
        return ""
    return (
        f"population.exploit.deviations: must be below {math.sqrt(size - 1):.4g}, since none of {size} members "
        f"can lie further from their mean, got {exploit.deviations:g}"
    )


def check_burn_in(run: Run) -> str:
    """Refuse a burn-in or a rung that leaves a rule no decision at which it could act."""
    chosen, exploit, last = run.population, run.population.exploit, run.rounds - 1
    where = f"the last decision before the end is at step {last * chosen.interval}"
    if chosen.cull and last * chosen.interval < chosen.cull.grace < run.training.steps:
        return f"population.cull.grace: {where}, so no member would come to a rung, got {chosen.cull.grace}"
    if exploit.kind == "none" or chosen.burn_in >= run.training.steps:
        return ""
    first = max(math.ceil(chosen.burn_in / chosen.interval), 1)  # decision
    if first > last:
        return f"population.burn_in: {where}, so no member would ever copy, got {chosen.burn_in}"
    if exploit.kind == "t_test" and last < 2:
        return (
            "population.exploit: t_test compares members by two scores at least, but there is one decision "
            "before the end; shorten population.interval"
        )
    if exploit.kind == "multiple_frequency":
        late = [each for each in exploit.frequencies if each <= last and last // each * each < first]
        if late:
            return (
                f"population.burn_in: {where}, so a part that evolves at every {late[0]}th decision never does "
                f"from step {chosen.burn_in} on"
            )
    if exploit.kind == "fire" and exploit.patience <= last - 1:
        begun = first + (1 - first) % exploit.patience  # evaluators begin at every `patience`-th decision
        if begun + exploit.patience > last:
            return f"population.burn_in: {where}, so evaluators from step {chosen.burn_in} on are not judged"
    return ""
