"""What must hold between the keys of `data:` that say what rows are."""

from importlib.util import find_spec

from shoal.search.config.rows import ROWS_OF
from shoal.search.config.run import Run
from shoal.search.config.sections import Data
from shoal.search.errors import nearest


def check_row_keys(run: Run) -> str:
    """Return what does not fit together in the rows that a run asks for, or nothing."""
    data = run.data
    return (
        check_kind(data)
        or check_record_columns(data)
        or check_installed(data)
        or check_text_fields(data)
        or check_readers(run)
    )


def check_kind(data: Data) -> str:
    if data.format is not None and ROWS_OF[data.format.kind] != data.rows:
        kind = data.format.kind
        return f"data.rows: must be {ROWS_OF[kind]} with data.format of kind {kind}, got {data.rows}"
    if data.format is None and data.rows in ("instruction", "preference"):
        kinds = [kind for kind, rows in ROWS_OF.items() if rows == data.rows]
        return f"data.rows: {data.rows} needs data.format of kind {' or '.join(kinds)}"
    records = data.rows != "tokens" or data.format is not None
    if records and data.text_field != "text":
        return (
            f"data.text_field: {'data.format' if data.format else 'data.columns'} is read instead; leave it out"
        )
    return ""


def check_record_columns(data: Data) -> str:
    if data.rows != "columns":
        given = "columns" if data.columns else "split_field" if data.split_field else ""
        return f"data.{given}: needs data.rows: columns, got {data.rows}" if given else ""
    if data.tokenizer != "bytes":
        return "data.tokenizer: rows of columns have no tokens; leave it out"
    for name, column in data.columns.items():
        if column.kind == "image" and find_spec("PIL") is None:
            return f"data.columns.{name}: images need the package Pillow (pip install 'shoal[images]')"
    return ""


ANY_ROWS = ("similarity", "table", "own")  # scores of rows of every kind
# the other scores that rows of a kind have: of columns by an exported classifier, of pairs by their states
SCORES_OF = {
    "columns": ("loss", "difference", "class", "embedding"),
    "instruction": ("ngrams", "loss", "difference", "embedding", "gradients", "influence"),
    "preference": ("ngrams", "ches"),
}
OF_ONE_ANSWER = ("loss", "difference", "embedding", "gradients", "influence")


def check_readers(run: Run) -> str:
    """Refuse what reads rows of other kinds than those of the run."""
    if run.data.rows == "tokens":
        return ""
    if problem := check_scored_rows(run):
        return problem
    scored = run.sampling.scorer is not None and run.trainable == "decoder"  # check_sampling says the rest
    reader = "sampling.scorer" if scored else "distill" if run.kind == "distill" else ""
    return f"{reader}: reads rows of plain tokens, got data.rows: {run.data.rows}" if reader else ""


def check_scored_rows(run: Run) -> str:
    """Return which part of a selection does not read the run's rows, and why, or nothing."""
    if run.selection is None:
        return ""
    if run.selection.duplicates is not None and run.rows == "columns":
        return "selection.duplicates: compares tokens, of which rows of columns have none; leave it out"
    known = (*SCORES_OF.get(run.rows, ()), *ANY_ROWS)
    for place, score in enumerate(run.selection.all_scores()):
        if score.kind in known:
            continue
        # a policy has scores of its own where the file gives none
        key = f"selection.scores.{place}" if run.selection.scores else "selection.policy"
        why = f"{score.kind} does not read data.rows: {run.data.rows}"
        if score.kind in OF_ONE_ANSWER and run.rows == "preference":
            why += ", since pairs have two answers"
        return f"{key}: {why}; take {', '.join(known[:-1])} or {known[-1]}"
    return ""


def check_installed(data: Data) -> str:
    if data.rows == "tokens" and data.format is None:
        return ""
    installed = [group for group, source in data.groups.items() if source == "installed"]
    if not installed:
        return ""
    return f"data.groups.{installed[0]}: installed has plain text alone, but data asks for records"


def check_text_fields(data: Data) -> str:
    if not isinstance(data.text_field, dict):
        return ""
    for group in data.text_field:
        if group not in data.groups:
            return f"data.text_field.{group}: no such group{nearest(group, data.groups)}"
    return ""
