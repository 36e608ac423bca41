"""Settings that nothing in a run looks at: who sets them believes that they count."""

from typing import Any

from shoal.search.config.distill import ABSENT
from shoal.search.config.run import Run


def idle_keys(run: Run) -> dict[str, Any]:
    """Return which keys of a run's sections count for nothing, as `model_dump` leaves them out."""
    if run.kind == "distill":
        return {"code": True, "model": True, "training": ABSENT - {"steps"}}
    if run.own:
        return {"data": True, "model": True, "training": {"batch", "evaluation_rows"}}
    return {"code": True}


def idle(run: Run) -> list[str]:
    """Return which of them the file sets, a line each."""
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
