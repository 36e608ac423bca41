"""What must hold of the section `mixing:`: between its keys, with other sections, with the rows of groups."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from shoal.policies.mixers import visits
from shoal.search.checks.values import ends, setting, wrong
from shoal.search.config.explain import shown, told_at
from shoal.search.config.kinds import SpaceWithin
from shoal.search.config.mixing import ByGroup, Mixing, settled
from shoal.search.config.run import Run

WEIGHTS = {"objective", "graph"}  # given by group name, but no proportions
MOST_CORNERS = 1024  # of the space of searched settings, that are looked at
UNKNOWN = 10**9  # rows of a group before the corpus is there: enough for any budget


def check_mixing(run: Run) -> str:
    """Return what is wrong with the mixing, as far as that is known without the corpus."""
    if run.mixing is None:
        return check_unmixed(run)
    if problem := check_company(run):
        return problem
    if not run.data.groups:
        return ""  # said elsewhere
    problem = check_unseen(run) or check_names(run)
    return problem or check_with_rows(run, dict.fromkeys(run.data.groups, UNKNOWN))


def check_company(run: Run) -> str:
    """Return which other section does not go together with a mixing."""
    if not run.reads_text:
        return f"mixing: needs groups of text, so `trainable: decoder`, got {run.trainable}"
    if run.data.proportions is not None:
        return "mixing: stands in place of data.proportions; give one of the two"
    if run.data.exhausted != "repeat":
        return f"data.exhausted: must be repeat with mixing, whose epochs bound it, got {run.data.exhausted}"
    return ""


def check_unseen(run: Run) -> str:
    """Return what is wrong with the groups that are not trained on."""
    assert run.mixing is not None
    unseen, kind = run.mixing.unseen, run.mixing.policy.kind
    if problem := check_table("mixing.unseen", dict.fromkeys(unseen, 1.0), run.data.groups, shares=False):
        return problem
    if unseen and not run.data.groups.keys() - set(unseen):
        return f"mixing.unseen: some group must be trained on, but these are all: {', '.join(unseen)}"
    if unseen and kind == "doge":
        return "mixing.unseen: doge sees gradients of what is trained alone; use aioli or skill_it"
    return ""


def check_names(run: Run) -> str:
    """Return which proportions name an unknown group, or do not sum to 1."""
    assert run.mixing is not None
    unseen = run.mixing.unseen
    trained = [group for group in run.data.groups if group not in unseen]
    for place, table in run.mixing.policy.tables().items():
        of_targets = place == "objective" or place.startswith("graph.")
        groups = unseen or trained if of_targets else trained
        shares = place.split(".")[0] not in WEIGHTS
        if problem := check_table(f"mixing.policy.{place}", table, groups, shares):
            return problem
    return ""


def check_table(key: str, table: ByGroup, groups: Iterable[str], shares: bool = True) -> str:
    """Return what is wrong with numbers by group name, which are shares unless they are said to be none."""
    for group in table:
        if group not in groups:
            return f"{key}.{group}: no such group; it can be {', '.join(groups)}"
    if table and shares and abs(sum(table.values()) - 1) > 1e-6:
        return f"{key}: proportions must sum to 1, but these sum to {sum(table.values()):.6g}"
    return ""


def check_unmixed(run: Run) -> str:
    if isinstance(run.hyperparameters.get("mixing"), SpaceWithin):
        return "hyperparameters.mixing: searches a mixing policy's settings, but there is no `mixing:`"
    return ""


def check_with_rows(run: Run, rows: Mapping[str, int]) -> str:
    """Return what is wrong with the mixing over groups of so many training rows, or nothing."""
    assert run.mixing is not None
    groups = run.groups_of(rows)
    try:
        built = run.mixing.build(list(rows))
        visits.check(built, groups)
    except ValueError as error:
        keys = type(run.mixing.policy).model_fields
        at = "mixing.policy" if str(error).partition(" ")[0] in keys else "mixing"
        return told_at(at, str(error), {*keys, "floor", "epochs"})
    return check_within(run, built) or check_probes(run, built, groups) or check_searched(run, built, groups)


def check_within(run: Run, built: visits.Mixing) -> str:
    """Return what is wrong with what has to be measured within a training step."""
    assert run.mixing is not None
    signals, kind = built.policy.signals, run.mixing.policy.kind
    if visits.EXCESS in signals and run.mixing.reference is None:
        return (
            f"mixing.reference: {kind} measures losses above those of a model that is trained already; name "
            f"the folder of an exported one, such as runs/NAME/best of a run in equal shares"
        )
    if visits.EXCESS not in signals and run.mixing.reference is not None:
        return f"mixing.reference: {kind} compares with no other model; leave it out"
    if run.cluster.stack and signals & visits.WITHIN:
        return (
            f"cluster.stack: what {kind} measures within a step is of one member, so its members train one by "
            f"one; leave it out"
        )
    if run.cluster.workers_per_member > 1 and signals & visits.WITHIN:
        return (
            f"cluster.workers_per_member: what {kind} measures within a step must be in one place; set it to 1"
        )
    return ""


def note_on_batches(run: Run) -> str:
    """Return what to expect of batches that cannot hold a row of every group."""
    groups = run.groups_of(dict.fromkeys(run.data.groups, 1)).count
    if run.training.batch >= groups:
        return ""
    return (
        f"mixing: a batch of {run.training.batch} rows is smaller than the {groups} groups, so proportions "
        f"hold over a visit and not in each batch"
    )


def check_probes(run: Run, built: visits.Mixing, groups: visits.Groups) -> str:
    """Return what is wrong with the visits that measure."""
    policy: Any = built.policy
    if visits.VALIDATION not in policy.signals or not hasattr(policy, "probe_steps"):
        return ""
    rows = policy.probe_steps(groups) * groups.batch
    if rows < groups.count:
        return (
            f"training.batch: a probe of {policy.probe_steps(groups)} steps of {groups.batch} rows must hold a "
            f"row of each of {groups.count} groups; use larger batches, fewer mixing.policy.sweeps, or more "
            f"mixing.policy.probe_share"
        )
    told = run.mixing.evaluation_rows if run.mixing else None
    if policy.noise and (told or run.training.evaluation_rows) < 2:
        return (
            "mixing.policy.noise: errors need two sweeps and two evaluation_rows of each group; give them, or "
            "move on any difference with noise: 0"
        )
    return ""


def check_searched(run: Run, built: visits.Mixing, groups: visits.Groups) -> str:
    """Return what is wrong with the settings of the policy that are searched, at each end of their domains.

    The same holds for those that a schedule or a start names.
    """
    space = run.hyperparameters.get("mixing")
    if space is not None and not isinstance(space, SpaceWithin):
        return "hyperparameters.mixing: must hold domains by name, such as `rate: {kind: float, ...}`"
    given: dict[str, Any] = {"hyperparameters": {"mixing": space.root if space else {}}}
    given |= {f"schedule.{place}": entry.hyperparameters for place, entry in enumerate(run.schedule)}
    given |= {f"starts.{place}": entry.hyperparameters for place, entry in enumerate(run.starts)}
    for place, hyperparameters in given.items():
        settings = hyperparameters.get("mixing", {})
        if not isinstance(settings, Mapping):
            return f"{place}.mixing: must be a mapping of keys, got {shown(settings)}"
        for name, domain in settings.items():
            if problem := check_setting(run.mixing, built, groups, name, domain):
                return f"{place}.mixing.{name}: {problem}"
        if problem := check_corners(run, built, groups, settings):
            return f"{place}.mixing: {problem}"
    return ""


def check_corners(run: Run, built: visits.Mixing, groups: visits.Groups, settings: Mapping[str, Any]) -> str:
    """Return which ends of the domains cannot be together, though each of them could alone.

    A gate needs two sweeps, but only where there is a gate.
    """
    for values in itertools.islice(itertools.product(*map(ends, settings.values())), MOST_CORNERS):
        changes = dict(zip(settings, values, strict=True))
        try:
            changed = settled(built, changes)
            visits.check(changed, groups)
        except (ValueError, TypeError) as error:
            problem = str(error)
        else:
            problem = check_probes(run, changed, groups)
        if problem:
            told = ", ".join(f"{name} {shown(value)}" for name, value in changes.items())
            return f"{told} cannot be: {problem}"
    return ""


def check_setting(
    mixing: Mixing | None, built: visits.Mixing, groups: visits.Groups, name: str, domain: Any
) -> str:
    """Return why a setting cannot have each value of a domain, or the value that is given."""
    assert mixing is not None
    known = searchable(built)
    # no search has domains of proportions, but each small run of a search for a mixture begins with its own
    proportions = name == "proportions" and not hasattr(domain, "kind")
    if name not in known and not proportions:
        return f"{mixing.policy.kind} has no such number; it has {', '.join(known)}"
    bound = name in Mixing.model_fields
    section, above = (Mixing, "mixing") if bound else (type(mixing.policy), "mixing.policy")
    problem = "" if proportions else wrong(f"{above}.{name}", setting(section, name), domain)
    if problem:
        return problem
    for value in ends(domain):
        try:
            visits.check(settled(built, {name: value}), groups)
        except (ValueError, TypeError) as error:
            return f"{shown(value)} cannot be: {error}"
    return ""


def searchable(built: visits.Mixing) -> list[str]:
    """Return the numbers of a policy that may be searched, and the bounds."""
    numbers = [
        field.name
        for field in fields(built.policy)  # type: ignore[arg-type]  # every policy is a dataclass
        if isinstance(getattr(built.policy, field.name), int | float) and field.name != "prior_steps"
    ]
    return [*numbers, "floor", "epochs"]
