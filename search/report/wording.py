"""Numbers as the report words them."""

from shoal.search.report.story import finite


def decimal(value: float | None) -> str:
    known = finite(value)
    return "" if known is None else f"{known:.4f}"


def with_error(value: float | None, error: float | None) -> str:
    """Return a number, with its standard error if that is known."""
    known = finite(error)
    return decimal(value) if known is None or not decimal(value) else f"{decimal(value)} ± {known:.4f}"


def difference(ours: float | None, alone: float | None) -> str:
    if finite(ours) is None or finite(alone) is None:
        return ""
    assert ours is not None and alone is not None
    return f"{ours - alone:+.4f}" + (f" ({100 * (ours / alone - 1):+.1f} %)" if alone > 0 else "")


def count(value: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:g}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.3g} s"
