"""What a run's file asks of the class of its members, which the class has to have declared."""

from shoal.search.checks.rows import check_row_keys
from shoal.search.config.run import Run


def check_rows_taken(run: Run) -> str:
    """Return that the class takes another kind of rows than the corpus has."""
    takes = run.described.takes
    if not takes or run.rows in takes or check_row_keys(run):
        return ""
    return f"data.rows: {who(run)} takes {' or '.join(takes)}, got {run.rows}"


def without_rows(run: Run, key: str) -> str:
    """Return that a key needs rows of `data:`, if the class takes none."""
    if run.takes_rows:
        return ""
    declare = f'; a class that takes them says so by `takes = {{"{run.rows}"}}`' if run.own else ""
    return f"{key}: needs rows in groups, and {who(run)} takes none{declare}"


def without_losses(run: Run, key: str, network: bool = False) -> str:
    """Return that a key needs the loss of each row, or also a Network, if the class is not so."""
    if network and not run.described.network:
        return f"{key}: needs a class that inherits from Network, got {run.trainable}"
    if run.described.by_row is not False:
        return ""
    return (
        f"{key}: needs the loss of each row: let `loss` of {who(run)} return `(rows,)`, and say so by "
        f"`by_row = True`"
    )


def who(run: Run) -> str:
    """Return the class of the members in words."""
    if run.kind == "distill":
        return "a super-network"
    return run.trainable.rpartition(":")[2] if run.own else f"the {run.trainable}"


def constant_of(run: Run) -> str:
    """Return why a constant cannot be searched."""
    return (
        f"is a constant of {who(run)}, which may shape its module, and members of other shapes cannot copy one "
        f"another. Give it under settings:, or let the class name it in `searched` if `numbers` may change it"
    )
