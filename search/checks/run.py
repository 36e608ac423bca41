"""What must hold between the keys of a run's file; each check returns a problem or nothing."""

from shoal.search.checks.cluster import check_broods, check_compile, check_room, check_span
from shoal.search.checks.copies import check_copies
from shoal.search.checks.declared import check_rows_taken
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
from shoal.search.checks.population import (
    check_exploit,
    check_hyperparameters,
    check_interval,
    check_mode,
    check_population,
    check_schedule,
    check_starts,
)
from shoal.search.checks.price import check_population_parts, check_price
from shoal.search.checks.prior import check_prior
from shoal.search.checks.recipes import check_recipes
from shoal.search.checks.rows import check_row_keys
from shoal.search.checks.sampled_numbers import check_sampled_numbers
from shoal.search.checks.sampling import check_sampling
from shoal.search.checks.score import check_score
from shoal.search.checks.start import check_grid, check_stop, check_track
from shoal.search.checks.values import check_values
from shoal.search.config.run import Run
from shoal.search.errors import nearest


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
