"""The first hyperparameters of a population: drawn at random, spread evenly by Optuna, or on a grid."""

import logging
import warnings
from typing import Any

from shoal.policies import population
from shoal.policies.grid import grid_points
from shoal.policies.parts import part_of_member
from shoal.policies.population import MemberState, PopulationState
from shoal.policies.space import Bool, Categorical, Constant, Float, Int, Ordered, Space, domains_of, nested
from shoal.search.config.run import Run

Searched = Float | Int | Ordered | Categorical | Bool


def first_state(run: Run) -> PopulationState:
    """Return every member's start, with what is fixed within its part."""
    fixed = run.part_values
    return tuple(
        known._replace(hyperparameters=known.hyperparameters | fixed[part_of_member(number, len(fixed))])
        for number, known in enumerate(drawn_state(run))
    )


def drawn_state(run: Run) -> PopulationState:
    """Return every member's start as it is drawn; with a schedule all begin with what it says first."""
    if run.schedule:
        return (MemberState(run.schedule[0].hyperparameters),) * run.population.members
    if run.starts:
        return tuple(MemberState(start.hyperparameters) for start in run.starts)
    if run.population.start == "grid":
        return tuple(map(MemberState, grid_points(run.space(), run.population.members)))
    if run.population.start == "optuna":
        return spread(run.space(), run.population.members, run.seed)
    return population.start(run.space(), run.population.members, run.seed)


def spread(space: Space, members: int, seed: int) -> PopulationState:
    """Take points of a scrambled Sobol sequence (the first is drawn at random) from Tune's OptunaSearch."""
    # imported here: the command line's other commands need neither
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray.tune.search.optuna").setLevel(logging.WARNING)
    domains = domains_of(space)
    searched = {path: domain for path, domain in domains.items() if not isinstance(domain, Constant)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # since 2022
        sampler = optuna.samplers.QMCSampler(
            scramble=True, seed=seed, independent_sampler=optuna.samplers.RandomSampler(seed)
        )
    names = {path: str(place) for place, path in enumerate(searched)}
    distributions = {names[path]: distribution(domain) for path, domain in searched.items()}
    search = OptunaSearch(distributions, metric="score", mode="max", sampler=sampler)
    found = []
    for member in range(members):
        drawn: dict[str, Any] = search.suggest(str(member)) or {}
        values = {
            path: domain.value if isinstance(domain, Constant) else value_of(domain, drawn[names[path]])
            for path, domain in domains.items()
        }
        found.append(MemberState(nested(values)))
    return tuple(found)


def distribution(domain: Searched) -> Any:
    """Return Optuna's distribution of a domain; of values that it cannot hold, their places."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(domain, Float):
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    if isinstance(domain, Int):
        return IntDistribution(domain.low, domain.high, log=domain.log)
    if isinstance(domain, Ordered):
        return IntDistribution(0, len(domain.values) - 1)
    return CategoricalDistribution(range(len(domain.values)))


def value_of(domain: Searched, drawn: Any) -> Any:
    return domain.values[drawn] if isinstance(domain, Ordered | Categorical | Bool) else drawn
