"""What must hold where members have a share of their weights, or compute with few bits."""

from shoal.search.config.run import Run
from shoal.trainables.settings import KNOWN_BITS

EMULATED = "emulated in float32: it is slower than without, and saves no memory"
NO_LINEAR = ("conv", "none", "timm")  # networks of a classifier without linear layers of ours


def uses(run: Run, name: str) -> bool:
    """Say whether a number of the recipe is other than neutral in some member."""
    neutral = type(run.training).model_fields[name].default
    named = name in run.hyperparameters or name in run.population.parts
    given = any(name in each.hyperparameters for each in run.starts)
    given = given or any(name in each.hyperparameters for each in run.schedule)
    return named or given or getattr(run.training, name) != neutral


def check_recipes(run: Run) -> str:
    """Return why members cannot be thinned out or rounded, for `shoal.search.checks.run.CHECKS`."""
    if run.kind == "distill" or not run.described.network:
        return ""
    network = run.settings.get("network", "mlp") if run.trainable == "classifier" else "mlp"
    if uses(run, "density") and network == "none":
        return "training.density: must be 1 with settings.network: none, which has no layers to thin out"
    return check_bits(run, network) if uses(run, "bits") else ""


def check_bits(run: Run, network: str) -> str:
    domain, known = run.hyperparameters.get("bits"), ", ".join(map(str, KNOWN_BITS))
    if domain is not None and getattr(domain, "kind", "") not in ("ordered", "categorical", "constant"):
        return f"hyperparameters.bits: must be of kind ordered with values among {known}"
    if run.trainable == "classifier" and network in NO_LINEAR:
        return f"training.bits: rounds linear layers of settings.network: mlp, got {network}; take mlp"
    for key, neutral in (("precision", "float32"), ("gradient_checkpointing", False)):
        if getattr(run.training, key) != neutral:
            return f"training.{key}: must be left out with bits, which are emulated in float32"
    if run.cluster.compile:
        return "cluster.compile: must be false with training.bits, whose rounding is not compiled"
    return ""


def note_on_emulation(run: Run) -> str:
    """Return a note if members emulate something, or carry weights that are not there."""
    found = []
    if uses(run, "bits"):
        found.append(f"training.bits: {EMULATED}")
    if uses(run, "density"):
        found.append("training.density: weights that are not there are zeros, and save no time or memory here")
    return "; ".join(found)
