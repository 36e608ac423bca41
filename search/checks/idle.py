"""Settings that this kind of run never reads: a file that sets them expects an effect, so it is refused."""

from typing import Any

from shoal.search.config.run import Run
from shoal.search.config.sections import DECODER_KEYS, GATE_KEYS, PRETRAINED_KEYS
from shoal.search.config.trainable import NOT_IN_SUPERNETWORKS, SETTINGS

OF_OWN = {"code": True, "declared": True, "settings": True}  # only a class of the user's own has these
CODE = {"code": True, "declared": True}  # built-in classes whose constants a file gives have the rest


def idle_keys(run: Run) -> dict[str, Any]:
    """Return the keys that a run never reads, in the form that `model_dump` takes as `exclude`."""
    found = idle_in_members(run)
    if run.has_own_code:
        found.pop("code", None)
    return found


def idle_in_members(run: Run) -> dict[str, Any]:
    """Return the keys that this kind of members never reads."""
    if run.kind == "distill":
        return OF_OWN | {"objective": True, "model": True, "training": NOT_IN_SUPERNETWORKS - {"steps"}}
    found: dict[str, Any] = {} if run.own else dict(CODE if run.trainable in SETTINGS else OF_OWN)
    if not run.described.gives:
        found |= {"objective": True}
    if run.takes_rows and run.rows == "columns":
        found |= {"data": {"sequence_length"}}
    if not run.takes_rows:
        found |= {"data": True, "training": {"batch", "evaluation_rows"}}
    if run.pretrained:
        found |= {"model": DECODER_KEYS}
    elif run.trainable == "decoder":
        found |= {"model": PRETRAINED_KEYS | (GATE_KEYS if run.model.experts == 1 else set())}
    else:
        found |= {"model": True}
    return found


def idle(run: Run) -> list[str]:
    """Return a line for each of them that the file sets."""
    found = []
    for section, keys in idle_keys(run).items():
        if section in OF_OWN:
            said = f"{section}: only a class of your own has it; leave it out"
            found += [said] * bool(getattr(run, section))
            continue
        if section == "objective":
            said = f"objective: {looker(run)} has a loss of its own; leave it out"
            found += [said] * bool(run.objective)
            continue
        given = getattr(run, section).model_fields_set
        named = sorted(given if keys is True else given & keys)
        if section == "data" and run.takes_rows:
            found += [f"data.{key}: rows of columns have no tokens; leave it out" for key in named]
            continue
        found += [
            f"{section}.{key}: {looker(run, key)} does not look at it; {instead(run, section)}" for key in named
        ]
    return found


def looker(run: Run, key: str = "") -> str:
    if run.trainable == "decoder" and key in GATE_KEYS:
        return "a decoder without model.experts"
    if run.kind == "distill":
        return "a run of kind distill"
    return "a class of your own" if run.own else f"the {run.trainable}"


def instead(run: Run, section: str) -> str:
    if run.own and section == "data":
        return f'leave it out, or let the class say `takes = {{"{run.rows}"}}`'
    return "leave it out"
