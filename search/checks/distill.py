"""What must hold for the section `distill:`: between its keys, and with other sections."""

from shoal.search.config.run import Run


def check_distill(run: Run) -> str:
    """Return what is wrong between the keys, for `shoal.search.checks.run.CHECKS`."""
    if (run.distill is not None) != (run.kind == "distill"):
        return (
            "distill: must be given if kind is distill"
            if run.kind == "distill"
            else f"distill: must not be given if kind is {run.kind}; set kind: distill or leave it out"
        )
    if run.distill is None:
        return ""
    if run.sampling.rule is not None or run.mixing is not None:
        return "sampling, mixing: a super-network learns from its teacher on all rows alike; leave both out"
    if run.cluster.workers_per_member > 1 and run.cluster.span != "ddp":
        return (
            f"cluster.span: must be ddp, since every worker has all weights of a super-network, "
            f"got {run.cluster.span}"
        )
    if problem := check_losses(run):
        return problem
    members, spaces = run.population.members, len(run.distill.spaces)
    if members % spaces:
        return (
            f"population.members: must be a multiple of the {spaces} sub-spaces, so that all have equally "
            f"many, got {members}; {members + spaces - members % spaces} would do"
        )
    return ""


def check_losses(run: Run) -> str:
    chosen = run.distilling
    if chosen.ensemble and not chosen.losses.logits:
        return (
            "distill.ensemble: only the logits of further teachers are used; set distill.losses.logits above 0"
        )
    if chosen.staged and chosen.losses.logits:
        return (
            "distill.staged: must be false with distill.losses.logits, since logits, as wide as the "
            "vocabulary, are too many to keep"
        )
    return ""
