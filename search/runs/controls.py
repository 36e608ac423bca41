"""The controls of a run: runs with the same budget, to compare it with."""

from shoal.search.config.kinds import no_exploit
from shoal.search.config.mixing import POLICY, MixingSection
from shoal.search.config.run import Run
from shoal.search.records.directory import STRATIFIED


def controls(run: Run) -> list[Run]:
    """Return the controls of a run, each with a folder of its own."""
    return [without_exploits(run), *([in_equal_shares(run)] if run.mixing is not None else [])]


def without_exploits(run: Run) -> Run:
    """Return the control: the same members with the same budget, which never copy."""
    population = run.population.model_copy(update={"exploit": no_exploit(), "cull": None, "backtrack": False})
    return run.model_copy(update={"population": population, "directory": f"{run.directory}/baseline"})


def in_equal_shares(run: Run) -> Run:
    """Return the control of a mixture: the same population with equally many rows of every group."""
    searched = {name: domain for name, domain in run.hyperparameters.items() if name != "mixing"}
    # unseen groups stay unseen, and still score the members
    even = MixingSection(policy=POLICY["stratified"](kind="stratified"), unseen=run.unseen)
    mixing = even if run.unseen else None
    plain = {"mixing": mixing, "hyperparameters": searched, "name": f"{run.name}-{STRATIFIED}"}
    equal = run.model_copy(update={**plain, "directory": f"{run.directory}/{STRATIFIED}"})
    # if only the mixture was searched, nothing is left to vary: then nobody copies either
    return equal if searched else equal.model_copy(update={"population": without_exploits(run).population})
