"""What must hold where each member chooses its rows, and a note on a choice that never comes."""

from collections.abc import Mapping

from shoal.search.checks.declared import without_losses
from shoal.search.checks.sampled_numbers import check_kept_score
from shoal.search.config.run import Run


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
