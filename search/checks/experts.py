"""What must hold of a decoder with experts, and of the gate between them."""

from collections.abc import Mapping
from typing import Any

from shoal.search.checks.values import each_hyperparameter, ends
from shoal.search.config.run import Run
from shoal.search.config.sections import COOLING_KEYS


def check_experts(run: Run) -> str:
    """Return why a decoder cannot have its experts, or a run its numbers of a gate, for `run.CHECKS`."""
    if run.trainable != "decoder" or run.kind == "distill":
        return ""
    named = {name: place for place, name, _ in each_hyperparameter(run) if name in COOLING_KEYS}
    if run.model.experts == 1:
        cools = ((place, name) for name, place in named.items())
        return next(
            (
                f"{place}.{name}: cools a gate between experts; set model.experts above 1"
                for place, name in cools
            ),
            "",
        )
    # late, since few files have experts
    from shoal.search.checks.objective import check_units
    from shoal.search.checks.sampled_numbers import chosen_by_place

    said = (never_cools(run, place, values) for place, values in chosen_by_place(run).items())
    return next(filter(None, said), "") or check_units(run, "gate_balance")


def never_cools(run: Run, place: str, values: Mapping[str, Any]) -> str:
    """Return why a gate cannot cool by any of the values that a place of the file has, or nothing."""
    found = {name: ends(values.get(name, getattr(run.model, name))) for name in ("gate_start", "gate_end")}
    if not all(isinstance(value, int | float) for numbers in found.values() for value in numbers):
        return ""  # which other checks refuse
    start, end = max(found["gate_start"]), min(found["gate_end"])
    if start >= end:
        return ""
    here = {name: f"{place if name in values else 'model'}.{name}" for name in found}
    return (
        f"{here['gate_end']}: must be at most {here['gate_start']} (at most {start:g}), since a gate cools, "
        f"got at least {end:g}"
    )
