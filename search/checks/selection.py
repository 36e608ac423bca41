"""What must hold for the section `selection:`, as far as that is known without the corpus."""

import os

from shoal.policies.selection.dsir import HELD_RATIO
from shoal.search.checks.declared import without_rows
from shoal.search.config.run import Run
from shoal.search.config.selection import columns_made, target_place, twice_made
from shoal.search.errors import nearest

LOOK_AT_TARGET = ("ngrams", "influence", "similarity")  # kinds of scores
OF_VECTORS = ("tensor", "image")  # kinds of columns


def check_selection(run: Run) -> str:
    return (
        check_corpus_place(run)
        or check_budget(run)
        or check_target(run)
        or check_column_names(run)
        or check_vectors(run)
        or check_columns(run)
    )


def check_corpus_place(run: Run) -> str:
    chosen = run.selection
    assert chosen is not None
    if problem := without_rows(run, "selection"):
        return problem
    if run.sampling.scorer is not None:
        return "sampling.scorer: its scores are those of another corpus than the chosen rows; leave one out"
    if chosen.chosen or not chosen.corpus:
        return ""
    taken = {"data.corpus": run.data.corpus, "the target's corpus": target_place(run.data.corpus)}
    for name, place in taken.items():
        if plain_place(place) == plain_place(chosen.corpus) and (chosen.target or name == "data.corpus"):
            return f"selection.corpus: must be another place than {name}, got {chosen.corpus}"
    return ""


def plain_place(place: str) -> str:
    """Return a place such that two spellings of one folder are the same word."""
    if "://" in place and not place.startswith("file://"):
        return place.rstrip("/")
    return os.path.realpath(os.path.expanduser(place.removeprefix("file://")))


def check_budget(run: Run) -> str:
    chosen = run.selection
    assert chosen is not None
    kind, budget = chosen.policy.kind, chosen.policy.build().budget
    given = [name for name in ("rows", "share") if getattr(chosen, name) is not None]
    if len(given) > 1:
        return "selection.share: give rows or share, not both"
    if budget == "needed" and not given:
        return f"selection.rows: {kind} needs a budget; give rows, or share, such as `share: 0.2`"
    if budget == "none" and given:
        return f"selection.{given[0]}: {kind} decides itself how many rows it keeps; leave it out"
    return ""


def check_target(run: Run) -> str:
    chosen = run.selection
    assert chosen is not None
    wanted = [score.kind for score in chosen.all_scores() if score.kind in LOOK_AT_TARGET]
    wanted += [chosen.policy.kind] if chosen.policy.build().aims else []
    if wanted and not chosen.target:
        return f"selection.target: {wanted[0]} needs at least one group, such as `law: installed`"
    if HELD_RATIO in chosen.policy.build().aims and "ngrams" not in wanted:
        return (
            "selection.scores: calibrated needs a score of kind ngrams, which is fitted to the target; add one"
        )
    if chosen.target and not wanted:
        return f"selection.target: neither the scores nor {chosen.policy.kind} look at a target; leave it out"
    # rows of a group on which nobody trains are not chosen, so they may be the target's
    pool = {group: source for group, source in run.data.groups.items() if group not in run.unseen}
    for name, source in chosen.target.items():
        same = [group for group, other in pool.items() if other == source != "installed"]
        same += [name] * (source == "installed" and pool.get(name) == source)
        if same:
            return (
                f"selection.target.{name}: is the same source as data.groups.{same[0]}, so what is chosen "
                f"would be the target itself; give another sample of it"
            )
    return ""


def check_column_names(run: Run) -> str:
    """Say which column two scores would make; those of tables and own classes are known later."""
    chosen = run.selection
    assert chosen is not None
    before = list[str]()
    for place, score in enumerate(chosen.all_scores()):
        made = columns_made(score) or ()
        if problem := twice_made(made, before, bool(chosen.mix)):
            return f"selection.scores.{place}: {problem}"
        before += made
    return ""


def check_vectors(run: Run) -> str:
    """Say what is wrong with the vectors of similarities, which scores before them make, or which rows have."""
    chosen = run.selection
    assert chosen is not None
    scores = chosen.all_scores()
    for place, score in enumerate(scores):
        if score.kind != "similarity":
            continue
        made = [columns_made(other) for other in scores[:place]]
        of_scores = {name for names in made if names is not None for name in names}
        columns = run.data.columns or {}
        known = of_scores | set(columns)
        unknown = None in made or (run.rows == "columns" and not run.data.columns)
        if not unknown and score.vectors not in known:
            near = nearest(score.vectors, known) if known else ", and there are none"
            return (
                f"selection.scores.{place}.vectors: must be a column of a score before it, such as "
                f"`kind: embedding`, or of data.columns, got {score.vectors}{near}"
            )
        if None not in made and score.vectors in set(columns) - of_scores:
            kind = columns[score.vectors].kind
            if kind not in OF_VECTORS:
                return (
                    f"selection.scores.{place}.vectors: must be a column of kind tensor or image, got "
                    f"{score.vectors} of kind {kind}; a score before it can make vectors"
                )
    return ""


def check_columns(run: Run) -> str:
    chosen = run.selection
    assert chosen is not None
    had = chosen.columns()
    if had is None:
        return ""
    for place, wanted in (("policy", chosen.policy.build().needs), ("mix", frozenset(chosen.mix))):
        if missing := sorted(wanted - had):
            what = f"{chosen.policy.kind} goes by" if place == "policy" else "the mix has"
            known = nearest(missing[0], had) if had else ", and there are none"
            return f"selection.{place}: {what} the column {missing[0]}, which selection.scores must make{known}"
    return ""
