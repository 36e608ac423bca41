"""Settings that this kind of run never reads: a file that sets them expects an effect, so it is refused."""

from typing import Any

from shoal.search.config.distill import NOT_IN_SUPERNETWORKS
from shoal.search.config.run import Run


def idle_keys(run: Run) -> dict[str, Any]:
    """Return the keys that a run never reads, in the form that `model_dump` takes as `exclude`."""
    if run.kind == "distill":
        return {"code": True, "model": True, "training": NOT_IN_SUPERNETWORKS - {"steps"}}
    if run.own:
        return {"data": True, "model": True, "training": {"batch", "evaluation_rows"}}
    return {"code": True}


def idle(run: Run) -> list[str]:
    """Return a line for each of them that the file sets."""
    who = "a class of your own" if run.own else f"a run of kind {run.kind}"
    found = []
    for section, keys in idle_keys(run).items():
        if section == "code":
            found += ["code: only a class of your own is looked for there; leave it out"] * bool(run.code)
            continue
        given = getattr(run, section).model_fields_set
        named = sorted(given if keys is True else given & keys)
        found += [f"{section}.{key}: {who} does not look at it; leave it out" for key in named]
    return found
