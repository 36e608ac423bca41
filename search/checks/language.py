"""What must hold for the objective of a language model: groups to forget, and hidden tokens."""

from shoal.policies.sampling.interface import needs_losses
from shoal.search.checks.sampled_numbers import chosen_by_place
from shoal.search.config.kinds import SpaceWithin
from shoal.search.config.objective import USUAL
from shoal.search.config.run import Run
from shoal.search.errors import nearest
from shoal.trainables.objectives.forget import Forget
from shoal.trainables.objectives.weighted import Weighted


def check_language(run: Run, losses: Weighted) -> str:
    """Return why a decoder or a causal_lm cannot train by the objective of the file, or nothing."""
    if problem := check_begun_apart(run, losses):
        return problem
    if run.trainable in USUAL:
        return ""
    if losses.several:
        return f"objective: the {run.trainable} takes one objective, got {', '.join(losses.terms)}"
    for term in losses.terms.values():
        if isinstance(term, Forget):
            return check_forget(run, term)
    return check_masked(run) if "masked" in losses.terms else ""


def check_begun_apart(run: Run, losses: Weighted | None) -> str:
    """Refuse adapters that begin apart without rows to forget, or with fewer ranks than are stored."""
    if getattr(run.model.adapter, "begin", "") != "fila" or not run.pretrained:
        return ""
    if losses is None or run.trainable != "causal_lm" or "forget" not in losses.terms:
        return (
            "model.adapter.begin: fila needs trainable: causal_lm with objective forget, whose rows it looks at"
        )
    if run.model.begin:
        return "model.begin: must be left out with model.adapter.begin: fila, since adapters begin in one way"
    if "rank" in run.hyperparameters or "rank" in run.population.parts:
        return (
            "hyperparameters.rank: must be left out with model.adapter.begin: fila, which takes all ranks off"
        )
    return ""


def check_masked(run: Run) -> str:
    """Refuse hidden tokens where texts are to be written, or the next token's loss is asked for."""
    if run.score.kind != "loss":
        return (
            f"score: {run.score.kind} asks for the next tokens, which a model of hidden ones does not give; "
            f"use kind: loss"
        )
    if run.mixing is not None and run.mixing.reference is not None:
        return "mixing.reference: is compared by the next token's loss, which objective masked does not train"
    if run.refine is not None:
        return "refine: scores rows by the next token's loss, which objective masked does not train"
    return ""


def check_forget(run: Run, term: Forget) -> str:
    """Refuse groups that are not there, and what takes a loss of forgotten rows for one that should fall."""
    if not term.groups:
        return "objective.groups: must name the groups of data.groups that are to be forgotten"
    if odd := next((group for group in term.groups if group not in run.data.groups), ""):
        return f"objective.groups: {odd} is no group{nearest(odd, run.data.groups)}"
    if twice := next((group for group in term.groups if term.groups.count(group) > 1), ""):
        return f"objective.groups: must name each group once, got {twice} twice"
    if term.form == "hinge" and (place := beta_named(run, term)):
        return f"{place}: form hinge does not look at it; leave it out, or use form: negative"
    kept = [group for group in run.unseen or run.data.groups if group not in term.groups]
    if not kept or not set(run.data.groups) - set(term.groups) - set(run.unseen):
        return (
            "objective.groups: some group must be kept and trained on, since it makes the score: a model that "
            "has forgotten everything is none"
        )
    if seen := next((group for group in term.groups if group in run.unseen), ""):
        return f"objective.groups: {seen} must be trained on to be forgotten, but mixing.unseen has it"
    if term.form == "negative" and run.trainable == "decoder":
        return "objective.form: negative compares with a model to begin with; use hinge, or a causal_lm"
    if term.form == "negative" and run.model.begin:
        return (
            "model.begin: must be left out with form negative, which compares with model.path; merge it before"
        )
    if run.kind not in ("population", "stages"):
        return f"objective.forget: needs kind: population or stages, got {run.kind}"
    return check_scored(run, term) or check_by_losses(run)


def beta_named(run: Run, term: Forget) -> str:
    """Return where a file gives, or searches, the beta of an objective, if it does."""
    for place, values in chosen_by_place(run).items():
        chosen = values.get("objective", {})
        if "beta" in (chosen.root if isinstance(chosen, SpaceWithin) else chosen):
            return f"{place}.objective.beta"
    return "objective.beta" if term.beta != Forget.beta else ""


def check_scored(run: Run, term: Forget) -> str:
    named = {run.score.groups} if isinstance(run.score.groups, str) else set(run.score.groups or ())
    if gone := sorted(named & set(term.groups)):
        return (
            f"score.groups: {gone[0]} is to be forgotten, so it cannot rank members; name groups that are kept"
        )
    return ""


def check_by_losses(run: Run) -> str:
    """Refuse what goes by losses: those of rows to forget are of another unit, and should rise."""
    if run.mixing is not None and run.mixing.policy.made_of.signals:
        return (
            f"mixing.policy: {run.mixing.policy.kind} goes by losses, which should rise where rows are "
            f"forgotten; use random or fixed proportions"
        )
    if run.sampling.rule is not None and needs_losses(run.sampling.rule.build()):
        return (
            f"sampling.rule: {run.sampling.rule.kind} goes by losses, which are of another unit where rows are "
            f"forgotten; use a rule that goes by a score"
        )
    return ""
