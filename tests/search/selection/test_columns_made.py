"""Each score makes columns of its own names and of numbers that can be stored; others are one clear line."""

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shoal.search.errors import InputError
from shoal.search.selection.select import select_corpus
from tests.search.corpus.test_scores import model, module
from tests.search.selection.test_select import places, run_of

__all__ = ["model", "module", "places"]  # fixtures
TOP = {"policy": {"kind": "top", "score": "s"}, "rows": 5}
LOSS = {"kind": "loss", "model": "m"}


def chosen_by(tmp_path: Path, places: dict[str, str], columns: str, scores: list[Any], **more: Any) -> Any:
    """Choose rows by a class that returns these columns, and by other scores; return the record."""
    head = "import numpy as np\n\nclass Own:\n    def score(self, rows):\n        n = len(rows)\n"
    (tmp_path / "own_of_columns.py").write_text(f"{head}        return {columns}\n")
    sys.modules.pop("own_of_columns", None)
    own = {"kind": "own", "made": "own_of_columns:Own"}
    run = run_of(tmp_path, places, {**TOP, "scores": [own, *scores], **more}, builder="local")
    return select_corpus(run.model_copy(update={"code": str(tmp_path)}), print).record


@pytest.mark.parametrize(
    ("scores", "more", "wanted"),
    [
        ([LOSS, LOSS], {}, r"scores\.1: makes the column loss, which a score before it makes too"),
        ([LOSS, LOSS | {"column": "mix"}], {"mix": {"loss": 1}}, "column mix, which selection.mix makes too"),
        ([LOSS | {"column": "reason"}], {}, r"scores\.0: makes the column reason, a name that decisions have"),
        ([LOSS | {"column": "row_id"}], {}, "makes the column row_id, a name that decisions have"),
    ],
)
def test_names_that_the_file_shows(tmp_path, places, scores, more, wanted) -> None:
    policy = {"kind": "top", "score": scores[0].get("column", "loss")}
    with pytest.raises(InputError, match=wanted):
        run_of(tmp_path, places, {"policy": policy, "rows": 5, "scores": scores, **more})


OTHER = {"kind": "ngrams"}


@pytest.mark.parametrize(
    ("columns", "more", "wanted"),
    [
        ("{'s': np.arange(n), 'margin': np.arange(n)}", {}, "scores.0: makes the column margin, a name that"),
        ("{'s': np.arange(n), 'row_id': np.arange(n)}", {}, "scores.0: column row_id is made by Shoal"),
        ("{'s': np.arange(n), 'mix': np.arange(n)}", {"mix": {"s": 1}}, "mix, which selection.mix makes too"),
        ("{'s': np.arange(n), 'length': np.arange(n)}", {}, "scores.1: makes the column length, which a score"),
        (
            "{'s': [[0.0] * (1 + row % 2) for row in range(n)]}",
            {},
            "column s must hold .* got lists of several",
        ),
        ("{'s': np.zeros((n, 0))}", {}, r"column s must hold .* got float64 of shape \(\d+, 0\)"),
        ("{'s': np.zeros(n, np.longdouble)}", {}, "column s must hold .* got float"),
    ],
)
def test_what_a_class_returns(tmp_path, places, columns, more, wanted) -> None:
    target = {"target": {"like": places["like"]}}
    with pytest.raises(InputError, match=wanted) as raised:
        chosen_by(tmp_path, places, columns, [OTHER], **target, **more)
    assert "\n" not in str(raised.value)


def test_numbers_of_another_byte_order_are_numbers(tmp_path, places) -> None:
    assert chosen_by(tmp_path, places, "{'s': np.arange(n, dtype='>f4')}", [])["kept"] == TOP["rows"]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (["a", "b"], "column s of .* must hold numbers, or vectors of one length, got string"),
        ([[1.0], [1.0, 2.0]], "got list<.*> of several lengths"),
        ([[1.0, 2.0, 3.0], [1.0]], "got list<.*> of several lengths"),  # 4 numbers, as of two rows of two
        ([[1.0], None], "got list<.*> of several lengths"),
        ([{"a": 1}, {"a": 2}], "got struct"),
        ([None, None], "got null"),
    ],
)
def test_tables_of_other_things(tmp_path, places, values, wanted) -> None:
    pq.write_table(pa.table({"row_id": [1, 2], "s": values}), tmp_path / "table.parquet")
    table = {"kind": "table", "path": str(tmp_path / "table.parquet")}
    with pytest.raises(InputError, match=wanted):
        select_corpus(run_of(tmp_path, places, {**TOP, "scores": [table]}, builder="local"), print)


def test_two_models_make_two_columns_of_vectors(tmp_path, places, model) -> None:
    scores = [
        {"kind": "embedding", "model": model},
        {"kind": "embedding", "model": model, "column": "other"},
        {"kind": "gradients", "model": model, "width": 8, "column": "slope"},
        {"kind": "similarity", "vectors": "other", "column": "near"},
    ]
    chosen = {"policy": {"kind": "top", "score": "near"}, "rows": 5, "target": {"like": places["like"]}}
    record = select_corpus(run_of(tmp_path, places, {**chosen, "scores": scores}), print).record
    assert record["kept"] == 5
    with pytest.raises(InputError, match=r"scores\.1: makes the column embedding, which a score before it"):
        run_of(tmp_path, places, {**chosen, "scores": [scores[0], scores[0], scores[3]]})
