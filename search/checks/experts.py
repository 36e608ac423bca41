"""What must hold of a decoder with experts, and of the gate between them."""

from shoal.search.checks.values import each_hyperparameter
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
    model = run.model
    if not named.keys() & {"gate_start", "gate_end"} and model.gate_start < model.gate_end:
        return (
            f"model.gate_end: must be at most model.gate_start ({model.gate_start:g}), since a gate cools, got "
            f"{model.gate_end:g}"
        )
    from shoal.search.checks.objective import check_units  # late, since few files have experts

    return check_units(run, "gate_balance")
