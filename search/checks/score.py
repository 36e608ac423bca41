"""What must hold for `score:`, between its keys and with other sections."""

from shoal.search.config.run import Run
from shoal.search.config.score import BY_LOSS
from shoal.search.errors import nearest

COUNTING = ("multiple_frequency", "fire")  # exploit rules that count decisions


def check_score(run: Run) -> str:
    """Return why members cannot be ranked as the file says, for `shoal.search.checks.run.CHECKS`."""
    if problem := check_goal(run):
        return problem
    if run.score == BY_LOSS:
        return ""
    return check_members(run) or check_groups(run) or check_questions_asked(run) or check_every(run)


def check_goal(run: Run) -> str:
    """Return why no member could ever reach `stop.score`."""
    goal = run.stop.score if run.stop else None
    if goal is None:
        return ""
    if run.by_loss and not run.own and goal > 0:  # a loss of the user's own may be below 0
        return (
            f"stop.score: the score is minus the {run.ranked_by}, and is never above 0; for a loss of {goal:g} "
            f"give {-goal:g}"
        )
    if run.score.kind != "loss" and not 0 < goal <= 1:
        return f"stop.score: must be above 0 and at most 1, since it is a share of right answers, got {goal:g}"
    return ""


def check_members(run: Run) -> str:
    """Return why members of this kind cannot be scored so."""
    known = run.described
    if run.kind != "population":
        return f"score: only members of kind: population are ranked by it, got kind {run.kind}; leave it out"
    if run.score.kind == "loss":
        if not (known.by_loss and known.takes_rows):
            return f"score: {run.trainable} has a score of its own, and no losses by group; leave it out"
        return ""
    kind = run.score.kind
    if run.own and not known.by_loss:
        return (
            f"score: {run.trainable} has a score of its own; leave {kind} out, or leave out its method score()"
        )
    if "instruction" not in known.takes:
        return (
            f"score: {kind} is of answers to prompts, but {run.trainable} takes no instruction rows; use "
            f"kind: loss"
        )
    if run.rows != "instruction":
        return (
            f"score: {kind} needs rows with answers, so data.format of kind instruction or chat, got {run.rows}"
        )
    if kind == "exact_match" and not known.writes:
        return (
            f"score: exact_match needs members that write, but {run.trainable} does not say `writes = True`; "
            f"use kind: choice or loss"
        )
    if kind == "exact_match" and run.shares > 1:
        return "score: exact_match is not written by members whose weights are sharded; use span: ddp"
    return ""


def check_groups(run: Run) -> str:
    given = run.score.groups
    for group in [given] if isinstance(given, str) else given or ():
        if group not in run.data.groups:
            return f"score.groups: {group} is no group{nearest(group, run.data.groups)}"
    return ""


def check_questions_asked(run: Run) -> str:
    """Return why there is nothing to choose from."""
    if run.score.kind != "choice":
        return ""
    in_rows = getattr(run.data.format, "choices", None)
    if run.score.choices and in_rows:
        return f"score.choices: the rows have their own (data.format.choices: {in_rows}); give one of the two"
    if not run.score.choices and not in_rows:
        return (
            "score.choices: must be the answers to choose from, such as [left, right], or name the field of "
            "each row's own as data.format.choices"
        )
    return ""


def check_every(run: Run) -> str:
    """Return which rule cannot do without a score at every interval."""
    every, chosen = getattr(run.score, "every", 1), run.population
    if every == 1:
        return ""
    if chosen.exploit.kind in COUNTING or chosen.backtrack:
        rule = "population.backtrack" if chosen.backtrack else f"population.exploit: {chosen.exploit.kind}"
        return f"score.every: must be 1 with {rule}, which goes by the score of every interval, got {every}"
    if run.data.exhausted != "repeat":
        return f"score.every: must be 1 where rows may end (data.exhausted: {run.data.exhausted}), got {every}"
    scored = (run.rounds - 1) // every
    needed = 2 if chosen.exploit.kind == "t_test" else 1
    copies = chosen.exploit.kind != "none" or chosen.cull is not None
    last = scored * every * chosen.interval
    if copies and (scored < needed or last < chosen.burn_in):
        return (
            f"score.every: with a score at every {every} of {run.rounds} intervals nobody would ever copy; "
            f"the last score before the end must come after population.burn_in, and t_test needs two of them"
        )
    return ""
