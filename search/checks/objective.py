"""What must hold for `objective:`, for `settings:` of a built-in class, and for numbers that are searched."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from shoal.policies.mixers.mixer import TRAINING
from shoal.search.checks.language import check_begun_apart, check_language
from shoal.search.checks.sampled_numbers import chosen_by_place
from shoal.search.checks.values import ends
from shoal.search.config.explain import explain
from shoal.search.config.kinds import SpaceWithin
from shoal.search.config.objective import (
    USUAL,
    class_settings,
    classes_told,
    embedder_settings,
    lacking_column,
    lacking_vector,
    objectives_of,
)
from shoal.search.config.run import Run
from shoal.search.config.trainable import SETTINGS
from shoal.search.errors import nearest
from shoal.trainables.objectives.interface import NamedLoss, Sizes
from shoal.trainables.objectives.weighted import Weighted

SEARCHED = "objective"


def check_settings_section(run: Run) -> str:
    """Return what is wrong with the constants of a built-in class."""
    section = SETTINGS.get(run.trainable)
    if section is None or run.kind == "distill":
        return ""
    for name in run.settings:
        if name not in section.model_fields:
            return f"settings.{name}: no constant of the {run.trainable}{nearest(name, section.model_fields)}"
    try:
        section.model_validate(run.settings)
    except ValidationError as error:
        return f"settings.{explain(error.errors()[0])[0]}".replace("settings.file.", "settings.").replace(
            "settings.file:", "settings:"
        )
    return ""


def check_objective(run: Run) -> str:
    """Return why members cannot train by the objective of the file, or nothing."""
    if check_settings_section(run):
        return ""
    if run.trainable not in USUAL and not run.objective:
        return check_unsaid(run)
    kinds = [section.kind for section in run.objective]
    if twice := next((kind for kind in kinds if kinds.count(kind) > 1), ""):
        return f"objective: each kind may stand in the list once, got {twice} twice"
    losses = objectives_of(run)
    return (
        check_alone(run)
        or check_language(run, losses)
        or check_given(run, losses)
        or check_fields(run, losses)
        or check_numbers(run, losses)
        or check_units(run)
        or check_whole_batches(run, losses)
        or check_towers(run)
        or check_storm(run, losses)
        or check_styles(run, losses)
    )


def check_alone(run: Run) -> str:
    """Refuse what says how a loss stands to others where it is the only one."""
    if len(run.objective) != 1:
        searched = run.hyperparameters.get(SEARCHED)
        still = run.objective and all(not section.weight for section in run.objective)
        weighed = still and "weight" in str(searched)
        return "objective: one of the losses must have a weight above 0" if still and not weighed else ""
    only, usual = run.objective[0], {"weight": 1.0, "balanced": False}
    named = next((name for name, value in usual.items() if getattr(only, name) != value), "")
    return f"objective.{only.kind}.{named}: is for a list of several losses; leave it out" if named else ""


def check_styles(run: Run, losses: Weighted) -> str:
    if "styles" not in losses.needs or class_settings(run).network == "conv":
        return ""
    return (
        "settings.network: must be conv with objective adversarial_style, which changes feature maps of images"
    )


def check_towers(run: Run) -> str:
    """Refuse a tower that no step trains where several workers wait for its gradient."""
    if run.trainable != "embedder" or run.cluster.workers_per_member == 1:
        return ""
    settings = embedder_settings(run)
    if settings.index and settings.towers == "two":
        return (
            "settings.towers: must be one with settings.index and cluster.workers_per_member above 1, since "
            "frozen documents leave the second tower without a gradient, got two"
        )
    return ""


def check_storm(run: Run, losses: Weighted) -> str:
    """Refuse learnt weights of rows where they cannot be learnt."""
    if run.sampling.rule is None or run.sampling.rule.kind != "storm":
        return ""
    if named := next((kind for kind, each in losses.terms.items() if each.stateful or each.alone), ""):
        return f"sampling.rule: storm needs an objective without a state or a step of its own, got {named}"
    places = {
        "cluster.workers_per_member": run.cluster.workers_per_member,
        "training.accumulate": run.training.accumulate,
    }
    told = ((name, value) for name, value in places.items() if value > 1)
    if run.training.batch == 1:
        return (
            "training.batch: must be at least 2 with storm, which holds a row's losses against those of others"
        )
    return next(
        (f"{name}: must be 1 with storm, which learns from whole batches, got {value}" for name, value in told),
        "",
    )


def check_unsaid(run: Run) -> str:
    """Refuse numbers of an objective that the file does not name, and what needs one."""
    if problem := check_begun_apart(run, None):
        return problem
    if any(SEARCHED in values for values in chosen_by_place(run).values()):
        return (
            f"hyperparameters.{SEARCHED}: needs `objective:`, whose numbers it has, such as objective: masked"
        )
    return ""


def check_given(run: Run, losses: Weighted) -> str:
    """Refuse an objective that needs what members of this class do not give."""
    for kind, term in losses.terms.items():
        if odd := sorted(term.needs - set(run.described.gives)):
            return f"objective.{kind}: needs {', '.join(odd)}, which the {run.trainable} does not give"
        lacks = sorted(term.fields - set(class_settings(run).roles)) if run.trainable == "classifier" else []
        if lacks:
            return f"objective.{kind}: looks at {', '.join(lacks)}, of which a classifier knows nothing"
    if run.trainable == "classifier" and "logits" not in losses.needs:
        return (
            f"objective: {', '.join(losses.terms)} trains no prediction; add one that does to the list, "
            f"such as cross_entropy"
        )
    return ""


def check_fields(run: Run, losses: Weighted) -> str:
    """Refuse an objective whose columns the rows lack, as far as the file says which they have."""
    if run.rows != "columns" or not run.data.columns:
        return ""
    if run.trainable == "embedder":
        problem = losses.misfit(Sizes(rows=run.training.batch))
        problem = f"objective: {problem}" if problem else ""
        return lacking_vector(embedder_settings(run), losses, run.data.columns) or problem
    settings, columns = class_settings(run), run.data.columns
    if problem := lacking_column(settings, losses, columns):
        return problem
    classes = classes_told(settings, columns)
    if not classes:
        return (
            f"settings.classes: is required, since data.columns.{settings.label} names no labels; such as "
            f"`settings: {{classes: 10}}`"
        )
    if classes < (least := max(2, len(getattr(columns[settings.label], "names", None) or ()))):
        named = f"data.columns.{settings.label} names {least}" if least > 2 else "there are two or more"
        return f"settings.classes: must be at least {least}, since {named}, got {classes}"
    problem = losses.misfit(Sizes(classes=classes, rows=run.training.batch))
    return f"objective: {problem}" if problem else ""


def check_numbers(run: Run, losses: Weighted) -> str:
    """Refuse a domain, a scheduled or a first value of a number that cannot be."""
    for place, values in chosen_by_place(run).items():
        if SEARCHED in values and (problem := within(losses, values[SEARCHED])):
            return f"{place}.{SEARCHED}{problem}"
    return ""


def within(losses: Weighted, space: Any) -> str:
    values = space.root if isinstance(space, SpaceWithin) else space
    if not isinstance(values, Mapping):
        return ": must hold domains by name, such as `alpha: {kind: float, low: 0.001, high: 0.1}`"
    if not losses.several:
        kind = next(iter(losses.terms))
        return numbers_within(losses, kind, values)
    for kind, inner in values.items():
        if kind not in losses.terms:
            return f".{kind}: a list of objectives has its numbers by kind{nearest(kind, losses.terms)}"
        own = inner.root if isinstance(inner, SpaceWithin) else inner
        if not isinstance(own, Mapping):
            return f".{kind}: must hold domains by name, such as `weight: {{kind: float, low: 0, high: 1}}`"
        if problem := numbers_within(losses, kind, own):
            return f".{kind}{problem}"
    return ""


def numbers_within(losses: Weighted, kind: str, values: Mapping[str, Any]) -> str:
    term, known = losses.terms[kind], losses.searched_of(kind)
    for name, domain in values.items():
        if name not in known:
            if not known:
                return f".{name}: {kind} has no number that may be searched"
            return f".{name}: no number of {kind} that may be searched{nearest(name, known)}"
        if isinstance(domain, SpaceWithin):
            return f".{name}: must be a domain"
        for value in ends(domain):
            if problem := refusal(term, name, value):
                return f".{name}: {problem}"
    return ""


def refusal(term: NamedLoss, name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"must be a number, got {value!r}"
    try:
        replace(term, **{name: value})  # type: ignore[arg-type]
    except ValueError as error:
        return str(error).rstrip(".")
    return ""


def check_units(run: Run, name: str = SEARCHED) -> str:
    """Refuse what compares losses of members, or of one at several times, while a number alters their units."""
    if name not in run.hyperparameters:
        return ""
    if run.sampling.view == "brood":
        return (
            f"sampling.view: members whose objective has other numbers have losses of other units; use member, "
            f"or do not search hyperparameters.{name}"
        )
    if run.mixing is not None and TRAINING in run.mixing.policy.made_of.signals:
        return (
            f"mixing.policy: {run.mixing.policy.kind} goes by training losses, whose units "
            f"hyperparameters.{name} changes; use a policy that goes by held-out losses, such as aioli"
        )
    return ""


def check_whole_batches(run: Run, losses: Weighted) -> str:
    """Refuse what takes a batch, or the losses of its rows, apart, where the objective needs it whole."""
    named = next(
        (kind for kind, term in losses.terms.items() if term.across_rows or term.stateful or term.alone), ""
    )
    named = named or ("the first of a balanced list" if losses.balanced else "")
    # an embedder gathers the embeddings of all its workers
    if named and run.cluster.workers_per_member > 1 and run.trainable != "embedder":
        return (
            f"cluster.workers_per_member: must be 1 with objective {named}, which compares the rows of a whole "
            f"batch or keeps a state, got {run.cluster.workers_per_member}"
        )
    if named and run.training.accumulate > 1:
        return (
            f"training.accumulate: must be 1 with objective {named}, which compares the rows of a whole batch "
            f"or keeps a state, got {run.training.accumulate}"
        )
    scalar = next((kind for kind, term in losses.terms.items() if not term.by_row), "")
    asking = "sampling.rule" if run.sampling.rule else "mixing" if run.mixing else ""
    asking = asking or ("cluster.workers_per_member" if run.cluster.workers_per_member > 1 else "")
    asking = asking or ("training.accumulate" if run.training.accumulate > 1 else "")
    if scalar and asking:
        return f"{asking}: needs the loss of each row, and {scalar} gives one for a batch; use its form: rows"
    return ""
