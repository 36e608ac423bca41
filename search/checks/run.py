"""What must hold between the keys of a run's file; each check returns a problem or nothing."""

import math
from collections.abc import Mapping

from shoal.search.checks.cluster import check_broods, check_compile, check_room, check_span
from shoal.search.checks.copies import check_copies
from shoal.search.checks.declared import check_rows_taken, constant_of, without_losses
from shoal.search.checks.distill import check_distill
from shoal.search.checks.experts import check_experts
from shoal.search.checks.generated import check_generated
from shoal.search.checks.late import (
    look_at_begin,
    look_at_images,
    look_at_mixing,
    look_at_objective,
    look_at_selection,
    look_at_settings,
    look_at_swarm,
)
from shoal.search.checks.price import check_population_parts, check_price
from shoal.search.checks.prior import check_prior
from shoal.search.checks.recipes import check_recipes
from shoal.search.checks.rows import check_row_keys
from shoal.search.checks.sampled_numbers import check_kept_score, check_sampled_numbers
from shoal.search.checks.score import check_score
from shoal.search.checks.start import check_grid, check_stop, check_track
from shoal.search.checks.values import SPACES, check_values
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


def check_data(run: Run) -> str:
    if not run.takes_rows:
        return ""
    if not run.data.groups:
        return "data.groups: at least one group is needed, such as `code: installed`"
    given = run.data.proportions
    if given is None:
        return ""
    for group in given:
        if group not in run.data.groups:
            return f"data.proportions.{group}: no such group{nearest(group, run.data.groups)}"
    if missing := [group for group in run.data.groups if group not in given]:
        return (
            f"data.proportions: must name all groups or none, but {', '.join(missing)} "
            f"{'has' if len(missing) == 1 else 'have'} no share there; give 0 to one that is not trained on"
        )
    if sum(given.values()) <= 0:
        return "data.proportions: at least one must be above 0"
    return ""


def check_model(run: Run) -> str:
    if run.trainable == "decoder" and run.model.layers < 1:
        return f"model.layers: must be at least 1, got {run.model.layers}"
    if run.takes_rows and run.training.accumulate > run.training.batch:
        return (
            f"training.accumulate: must be at most training.batch ({run.training.batch}) rows, got "
            f"{run.training.accumulate}"
        )
    return ""


def check_sampling(run: Run) -> str:
    if run.sampling.rule is None:
        sampling = run.sampling
        idle = "view" if sampling.view == "brood" else "scorer" if sampling.scorer else ""
        idle = idle or ("score" if sampling.score else "")
        return f"sampling.{idle}: needs sampling.rule" if idle else ""
    if run.trainable == "toy":
        return "sampling.rule: the toy has no rows to choose from"
    if run.kind != "population":
        return f"sampling.rule: only members of kind: population have one, got kind {run.kind}"
    if problem := without_losses(run, "sampling.rule"):
        return problem
    if run.sampling.view == "brood" and (run.population.mode == "asynchronous" or run.population.backtrack):
        return "sampling.view: brood needs population.mode: synchronous and no backtrack; member goes with both"
    from shoal.policies.sampling.interface import needs_losses

    rule = run.sampling.rule.build()
    if run.sampling.view == "brood" and not (needs_losses(rule) and run.takes_rows):
        return (
            f"sampling.view: the brood's losses serve rules that choose by losses, on rows of `data:`; "
            f"got {run.sampling.rule.kind} with trainable {run.trainable}"
        )
    scores = "score" in rule.spec.needs
    if run.sampling.score and (problem := check_kept_score(run)):
        return problem
    if scores != bool(run.sampling.scorer or run.sampling.score):
        kind = run.sampling.rule.kind
        wanted = f"{kind} goes by scores; name an exported model, such as runs/NAME/best"
        return f"sampling.scorer: {wanted if scores else f'serves rules that go by scores, got {kind}'}"
    if run.sampling.scorer and run.trainable != "decoder":
        return f"sampling.scorer: scores rows of text, got trainable {run.trainable}"
    if run.data.exhausted != "repeat":
        return (
            f"data.exhausted: must be repeat with sampling.rule, which counts epochs, got {run.data.exhausted}"
        )
    if getattr(rule, "burn_in", 0) >= run.training.steps:
        return (
            f"sampling.rule.burn_in: must be less than training.steps ({run.training.steps}), or nothing would "
            f"ever be weighed, got {run.sampling.rule.model_dump()['burn_in']}"
        )
    return ""


def note_on_epochs(run: Run, rows: Mapping[str, int]) -> str:
    """Return a note if the rule needs losses of earlier epochs, but the run ends within each group's first."""
    from shoal.policies.sampling.interface import needs_losses

    rule = run.sampling.rule
    if rule is None or not needs_losses(rule.build()):
        return ""
    given = run.data.proportions or dict.fromkeys(rows, 1.0)
    total, trained = sum(given.values()), run.training.steps * run.training.batch
    # a mixing policy may give all rows to one group
    most = {group: trained * (1.0 if run.mixing else given.get(group, 0.0) / total) for group in rows}
    if any(most[group] > rows[group] for group in rows):
        return ""
    return (
        f"sampling.rule: {rule.kind} chooses by the losses of earlier epochs, but {run.training.steps} steps "
        f"of {run.training.batch} rows end within the first epoch of {', '.join(rows)}, so it keeps every row"
    )


CHECKS = (
    check_population,
    check_exploit,
    check_interval,
    check_copies,
    check_broods,
    check_span,
    check_compile,
    check_mode,
    check_schedule,
    check_hyperparameters,
    check_values,
    check_rows_taken,
    look_at_settings,
    check_data,
    check_row_keys,
    check_generated,
    look_at_objective,
    look_at_images,
    look_at_mixing,
    check_starts,
    check_grid,
    check_stop,
    check_track,
    look_at_swarm,
    check_model,
    check_room,
    check_sampling,
    check_score,
    check_population_parts,
    check_price,
    check_recipes,
    check_sampled_numbers,
    look_at_selection,
    check_distill,
    look_at_begin,
    check_prior,
    check_experts,
)
# `kind: mixture` makes its populations later: `as_population` checks them there
FOR_MIXTURES = (
    check_stop,
    check_rows_taken,
    check_data,
    check_row_keys,
    look_at_swarm,
    check_model,
    check_sampling,
    check_score,
    look_at_selection,
    check_experts,
)


def problems(run: Run) -> list[str]:
    """Return a line for each thing that does not hold between the sections of a run."""
    if run.kind == "stages":
        from shoal.search.checks.stages import check_stages

        return check_stages(run, problems)
    checks = FOR_MIXTURES if run.kind == "mixture" else CHECKS
    return [problem for check in checks if (problem := check(run))]
