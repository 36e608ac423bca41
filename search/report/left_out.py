"""What a member's sampling policy holds of each row at the end, and the rows that it takes for wrong ones."""

from html import escape
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoal.cluster import checkpoints
from shoal.cluster.storage import BrokenFile, Store
from shoal.search.config.run import Run
from shoal.search.corpus.build import load_corpus
from shoal.search.errors import InputError
from shoal.search.messages import Row
from shoal.search.records.directory import open_run
from shoal.search.records.last import member_of
from shoal.search.report.page import section
from shoal.search.report.story import Story
from shoal.search.report.wording import decimal
from shoal.search.selection.corpora import Corpus, read_ids
from shoal.search.selection.pictures import row_as_html, rows_as_html
from shoal.search.selection.shown import ReadRow, read_rows_at

JUDGING_RULES = (
    "small_loss",
)  # these rules say of a row that it is wrong; others leave out what is easy, or drawn
ROWS_SHOWN, LETTERS = 10, 200


def rows_of_member(run: Run, store: Store, row: Row) -> pa.Table:
    """Return what the sampling policy of a member holds of each training row at its last checkpoint.

    `group` and `row_id` are the corpus's; `loss` is the last one that the member's weights had, null where
    there is none, or where the members of a brood share them; `left_out` says that the running epoch does not
    train on the row, and `epochs_out` how many epochs in a row have not. Raises InputError where members have
    no such policy, or no corpus.
    """
    if run.sampling.rule is None or not run.takes_rows:
        raise InputError(f"{run.directory} has no `sampling.rule` over a corpus, so it leaves no rows out.")
    pools = checkpoints.load_member(store, row.round, row.member, (0, run.shares))["batches"]["pools"]
    corpus = trained_corpus(run)
    loss = [pool["view"].get("loss", np.full(len(pool["keep"]), np.nan)) for pool in pools]
    out = [~np.asarray(pool["keep"]) | (np.asarray(pool["weight"]) == 0) for pool in pools]
    return pa.table(
        {
            "group": np.repeat(list(corpus.groups), [len(pool["keep"]) for pool in pools]),
            "row_id": read_ids(corpus),
            "loss": pa.array(np.concatenate(loss).astype(np.float32), from_pandas=True),
            "left_out": np.concatenate(out),
            "epochs_out": np.concatenate([np.asarray(pool["age"]) for pool in pools]),
        }
    )


def trained_corpus(run: Run) -> Corpus:
    return Corpus(run.data, load_corpus(run.data), tuple(run.unseen))


def left_out_section(story: Story, store: Store) -> str:
    """Return the rows of the largest losses among those that the winner takes for wrong ones."""
    rule = ((story.settings.get("sampling") or {}).get("rule") or {}).get("kind")
    if rule not in JUDGING_RULES or story.status != "done":
        return ""
    try:
        run, _ = open_run(store.uri)
        rows = rows_of_member(run, store, member_of(run, store, story.winner))
        shown = worst_rows(rows)
        read = read_rows_at(trained_corpus(run), sorted(shown))
    except (FileNotFoundError, BrokenFile, InputError) as error:
        return section("Rows left out", f"<p>They cannot be read any more: {escape(str(error))}</p>")
    count = int(pc.sum(rows["left_out"]).as_py() or 0)
    told = (
        f"<p>Member {story.winner} leaves out {count} of {len(rows)} rows at the end. The largest losses:</p>"
    )
    drawn = [left_out_row(rows, place, read[place]) for place in shown]
    return section("Rows left out", told, rows_as_html(drawn, any(row.pictures for row in read.values())))


def worst_rows(rows: pa.Table) -> list[int]:
    """Return the places of the left-out rows with the largest losses, the largest first."""
    loss = np.nan_to_num(rows["loss"].to_numpy(zero_copy_only=False), nan=-np.inf)
    out = np.flatnonzero(rows["left_out"].to_numpy(zero_copy_only=False))
    return [int(place) for place in out[np.argsort(-loss[out], kind="stable")][:ROWS_SHOWN]]


def left_out_row(rows: pa.Table, place: int, read: ReadRow) -> str:
    told: dict[str, Any] = {name: rows[name][place].as_py() for name in ("group", "row_id", "loss")}
    said = f"{told['row_id']} of {told['group']}, loss {decimal(told['loss']) or 'unknown'}"
    return row_as_html(told["row_id"], said, read.text[:LETTERS], read.pictures)
