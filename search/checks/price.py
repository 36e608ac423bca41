"""What must hold where a setting trades loss for cost: a search of losses alone goes to its dearest value."""

from collections.abc import Mapping

from shoal.search.config.run import Run

# where a file gives these as constants
CONSTANT_AT = {"rank": "model.adapter.rank"} | {
    name: f"training.{name}" for name in ("bits", "density", "prior")
}


def check_price(run: Run) -> str:
    """Return why a search would only find the dearest settings, for `shoal.search.checks.run.CHECKS`."""
    known = set(run.described.priced)
    searched = sorted(name for name, domain in run.hyperparameters.items() if name in known and varies(domain))
    if run.price:
        return check_priced(run, known)
    copies = run.population.exploit.kind != "none" or run.population.cull is not None
    if not searched or not copies:  # where nobody copies, each member keeps its own
        return ""
    name = searched[0]
    constant = CONSTANT_AT.get(name, f"settings.{name}")
    return (
        f"hyperparameters.{name}: trades loss for cost, so a search of losses ends at its dearest value; fix "
        f"it within parts of the population (population.parts: {{{name}: [...]}}), price it in the score "
        f"(price: 0.1), or make it a constant ({constant})"
    )


def check_priced(run: Run, known: set[str]) -> str:
    """Return why a price would change nothing, or what it cannot be taken off."""
    if run.kind != "population":
        return f"price: only members of kind: population have a cost, got kind {run.kind}; leave it out"
    named = {*run.hyperparameters, *run.population.parts}
    named |= {name for start in run.starts for name in start.hyperparameters}
    named |= {name for entry in run.schedule for name in entry.hyperparameters}
    if not known & named:
        said = f"; {', '.join(sorted(known))} would" if known else ""
        return f"price: no hyperparameter of this run trades loss for cost{said}; leave it out"
    return ""


def check_population_parts(run: Run) -> str:
    """Return why the population cannot be divided as the file says, for the same."""
    given, members = run.population.parts, run.population.members
    if not given:
        return ""
    if run.kind != "population":
        return (
            f"population.parts: only members of kind: population have them, got kind {run.kind}; leave it out"
        )
    if run.schedule or run.starts:
        return "population.parts: stand in place of schedule and starts; leave those out"
    if run.population.start == "grid":
        return "population.start: a grid needs no parts; name their values under hyperparameters"
    if problem := check_values_given(given, run.hyperparameters):
        return problem
    if members % run.parts:
        return (
            f"population.members: must be a multiple of the {run.parts} parts, so that all have equally many, "
            f"got {members}; {members + run.parts - members % run.parts} would do"
        )
    return ""


def check_values_given(given: Mapping[str, tuple[object, ...]], searched: Mapping[str, object]) -> str:
    for name, values in given.items():
        if name in searched:
            return f"population.parts.{name}: is searched already; leave out hyperparameters.{name}"
        if not values or any(value in values[:place] for place, value in enumerate(values)):
            return f"population.parts.{name}: must be values that differ, got {list(values)}"
    return ""


def varies(domain: object) -> bool:
    return getattr(domain, "kind", "") != "constant"
