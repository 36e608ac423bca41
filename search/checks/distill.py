"""What must hold of the section `distill:`, between its keys and with other sections."""

from shoal.search.config.run import Run


def check_distill(run: Run) -> str:
    """Return what is wrong between the keys, for `shoal.search.checks.run.CHECKS`."""
    if (run.distill is not None) != (run.kind == "distill"):
        return "distill: goes with kind: distill, and that needs it"
    if run.distill is None:
        return ""
    if run.sampling.rule is not None or run.mixing is not None:
        return "sampling, mixing: a super-network learns from its teacher on all rows alike; leave both away"
    if run.cluster.workers_per_member > 1 and run.cluster.span != "ddp":
        return (
            f"cluster.span: a super-network's weights are whole on every worker, so ddp, got {run.cluster.span}"
        )
    if problem := check_losses(run):
        return problem
    members, spaces = run.population.members, len(run.distill.spaces)
    if members % spaces:
        return (
            f"population.members: must be a multiple of the {spaces} sub-spaces, so that each has as many, "
            f"got {members}; {members + spaces - members % spaces} would do"
        )
    return ""


def check_losses(run: Run) -> str:
    chosen = run.distilling
    if chosen.ensemble and not chosen.losses.logits:
        return "distill.ensemble: further teachers show their logits alone; give distill.losses.logits a weight"
    if chosen.staged and chosen.losses.logits:
        return "distill.staged: keeps relations and streams; logits, as wide as the vocabulary, are too many"
    return ""
