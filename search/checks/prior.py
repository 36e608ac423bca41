"""What must hold of a prior on the members' weights."""

from shoal.search.config.run import Run


def check_prior(run: Run) -> str:
    """Return why members cannot have the prior that a file asks for, for `run.CHECKS`."""
    training = run.training
    if training.prior_start != 2 and run.pretrained:
        return (
            f"training.prior_start: weights of a pretrained model are not drawn, got {training.prior_start:g}; "
            f"leave it out"
        )
    asked = bool(training.prior) or "prior" in run.hyperparameters or "prior" in run.population.parts
    if asked and run.shares > 1:
        return "training.prior: needs whole matrices, and cluster.span: fsdp cuts them; use ddp"
    if "prior_shape" in run.hyperparameters and not asked:
        return "hyperparameters.prior_shape: is that of a prior, and training.prior is 0"
    return ""
