"""What must hold where some groups of rows were generated: a share of real rows stays."""

import os

from shoal.search.config.run import Run
from shoal.search.errors import nearest


def check_generated(run: Run) -> str:
    """Return why a run would have fewer real rows than its file asks for, for `run.CHECKS`."""
    data = run.data
    for group in data.generated:
        if group not in data.groups:
            return f"data.generated: no such group as {group}{nearest(group, data.groups)}"
    if not data.generated:
        return "data.real_share: needs data.generated, which names groups of generated rows" * bool(
            data.real_share
        )
    least, how = least_real(run)
    if least < data.real_share - 1e-9:
        return (
            f"data.real_share: must be kept to by the groups that are not generated, but they have "
            f"{least:.3g} of the rows at least, got {data.real_share:g}; raise {how}"
        )
    return ""


def least_real(run: Run) -> tuple[float, str]:
    """Return the least share of rows that were not generated, and the key that decides it."""
    trained = [group for group in run.data.groups if group not in run.unseen]
    real = [group for group in trained if group not in run.data.generated]
    if run.mixing is not None:
        return (run.mixing.floor * len(real) if len(real) < len(trained) else 1.0), "mixing.floor"
    given = run.data.proportions or dict.fromkeys(trained, 1.0)
    return sum(given.get(group, 0.0) for group in real) / max(sum(given.values()), 1e-12), "data.proportions"


def note_on_own_writing(run: Run) -> str:
    """Return a note where members begin with a run in whose directory generated rows of theirs lie."""
    if run.begin is None:
        return ""
    ours = os.path.join(run.begin.run, "")
    written = [group for group in run.data.generated if str(run.data.groups[group]).startswith(ours)]
    if not written:
        return ""
    return (
        f"data.generated: {', '.join(written)} was written by {run.begin.run}, with which members begin: "
        f"each such round narrows what they write, unless real rows stay (data.real_share)"
    )
