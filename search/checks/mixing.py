"""What must hold for the section `mixing:`: between its keys, with other sections, with the groups' rows."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from shoal.policies.mixers import visits
from shoal.policies.mixers.mixer import EXCESS, VALIDATION, WITHIN, Groups
from shoal.search.checks.declared import without_losses, without_rows
from shoal.search.checks.values import ends, setting, wrong
from shoal.search.config.explain import as_yaml, told_at
from shoal.search.config.kinds import SpaceWithin
from shoal.search.config.mixing import ByGroup, MixingSection, with_numbers
from shoal.search.config.run import Run

WEIGHTS = {"objective", "graph"}  # tables by group name that need not sum to 1
MOST_CORNERS = 1024  # so many corners of the space of searched settings are checked
UNKNOWN = 10**9  # rows of each group, assumed until the corpus is built: enough for any budget


def check_mixing(run: Run) -> str:
    """Return what is wrong with the mixing, as far as that is known without the corpus."""
    if problem := check_company(run):
        return problem
    if not run.data.groups:
        return ""  # check_data says it
    problem = check_unseen(run) or check_names(run)
    return problem or check_with_rows(run, dict.fromkeys(run.data.groups, UNKNOWN))


def check_company(run: Run) -> str:
    """Return which other section does not go together with a mixing."""
    if problem := without_rows(run, "mixing") or without_losses(run, "mixing", network=True):
        return problem
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
    """Return what is wrong with a table by group name; with `shares` it must sum to 1."""
    for group in table:
        if group not in groups:
            return f"{key}.{group}: no such group; it can be {', '.join(groups)}"
    if table and shares and abs(sum(table.values()) - 1) > 1e-6:
        return f"{key}: proportions must sum to 1, but these sum to {sum(table.values()):.6g}"
    return ""


def check_with_rows(run: Run, rows: Mapping[str, int]) -> str:
    """Return what is wrong with the mixing over groups of so many training rows, or nothing."""
    assert run.mixing is not None
    groups = run.groups_of(rows)
    try:
        built = run.mixing.build(list(rows))
        visits.check_bounded(built, groups)
    except ValueError as error:
        keys = type(run.mixing.policy).model_fields
        at = "mixing.policy" if str(error).partition(" ")[0] in keys else "mixing"
        return told_at(at, str(error), {*keys, "floor", "epochs"})
    return check_within(run, built) or check_probes(run, built, groups) or check_searched(run, built, groups)


def check_within(run: Run, built: visits.BoundedMixing) -> str:
    """Return what stands in the way of what the policy measures within a training step."""
    assert run.mixing is not None
    signals, kind = built.policy.signals, run.mixing.policy.kind
    if EXCESS in signals and run.mixing.reference is None:
        return (
            f"mixing.reference: {kind} compares losses with those of a trained model; name the folder of an "
            f"exported one, such as runs/NAME/best of a run in equal shares"
        )
    if EXCESS not in signals and run.mixing.reference is not None:
        return f"mixing.reference: {kind} compares with no other model; leave it out"
    if run.cluster.stack and signals & WITHIN:
        return (
            f"cluster.stack: {kind} measures one member within a step, so its members train one by one; "
            f"leave it out"
        )
    if run.training.accumulate > 1 and signals & WITHIN:
        return (
            f"training.accumulate: must be 1 with {kind}, which measures the groups of a whole batch, "
            f"got {run.training.accumulate}"
        )
    if run.cluster.workers_per_member > 1 and signals & WITHIN:
        return f"cluster.workers_per_member: {kind} measures within a step on one worker; set it to 1"
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


def check_probes(run: Run, built: visits.BoundedMixing, groups: Groups) -> str:
    """Return what is wrong with the visits that probe the groups."""
    policy: Any = built.policy
    if VALIDATION not in policy.signals or not hasattr(policy, "probe_steps"):
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
            "set noise: 0 to act on any difference"
        )
    return ""


def check_searched(run: Run, built: visits.BoundedMixing, groups: Groups) -> str:
    """Return what is wrong with the searched settings of the policy, at each end of their domains.

    Settings that a schedule or a start gives are checked alike.
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
            return f"{place}.mixing: must be a mapping of keys, got {as_yaml(settings)}"
        for name, domain in settings.items():
            if problem := check_setting(run.mixing, built, groups, name, domain):
                return f"{place}.mixing.{name}: {problem}"
        if problem := check_corners(run, built, groups, settings):
            return f"{place}.mixing: {problem}"
    return ""


def check_corners(run: Run, built: visits.BoundedMixing, groups: Groups, settings: Mapping[str, Any]) -> str:
    """Return which ends of the domains do not go together, though each alone does.

    For example, a gate needs two sweeps, and without a gate one is enough.
    """
    for values in itertools.islice(itertools.product(*map(ends, settings.values())), MOST_CORNERS):
        changes = dict(zip(settings, values, strict=True))
        try:
            changed = with_numbers(built, changes)
            visits.check_bounded(changed, groups)
        except (ValueError, TypeError) as error:
            problem = str(error)
        else:
            problem = check_probes(run, changed, groups)
        if problem:
            told = ", ".join(f"{name} {as_yaml(value)}" for name, value in changes.items())
            return f"{told} cannot be: {problem}"
    return ""


def check_setting(
    mixing: MixingSection | None, built: visits.BoundedMixing, groups: Groups, name: str, domain: Any
) -> str:
    """Return why a setting cannot have each value of a domain, or the value that is given."""
    assert mixing is not None
    known = searchable(built)
    # proportions have no domains, but each small run of kind mixture starts with its own
    proportions = name == "proportions" and not hasattr(domain, "kind")
    if name not in known and not proportions:
        return f"{mixing.policy.kind} has no such number; it has {', '.join(known)}"
    bound = name in MixingSection.model_fields
    section, above = (MixingSection, "mixing") if bound else (type(mixing.policy), "mixing.policy")
    problem = "" if proportions else wrong(f"{above}.{name}", setting(section, name), domain)
    if problem:
        return problem
    for value in ends(domain):
        try:
            visits.check_bounded(with_numbers(built, {name: value}), groups)
        except (ValueError, TypeError) as error:
            return f"{as_yaml(value)} cannot be: {error}"
    return ""


def searchable(built: visits.BoundedMixing) -> list[str]:
    """Return the numbers of a policy that may be searched, and the bounds."""
    numbers = [
        field.name
        for field in fields(built.policy)  # type: ignore[arg-type]  # every policy is a dataclass
        if isinstance(getattr(built.policy, field.name), int | float) and field.name != "prior_steps"
    ]
    return [*numbers, "floor", "epochs"]
