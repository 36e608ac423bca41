"""What a scorer is: made once in each process, and then called with rows and their ids."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.search.errors import InputError
from shoal.search.selection.corpora import ScoreColumns

RowScorer = Callable[[Any, NDArray[np.int64]], ScoreColumns]  # (rows, ids) -> columns


class Scoring(NamedTuple):
    """All that a process needs to make a scorer; it pickles."""

    settings: Any  # a section of `selection.scores`
    key: str  # its place in the file, for messages
    length: int  # tokens of a row
    device: str = "cpu"
    tokenizer: str = "bytes"  # the corpus's
    fitted: Any = None  # it was fitted before rows are scored
    code: str = ""  # folder of a class of the user's own


def tokens_of(rows: Any, key: str) -> NDArray[np.unsignedinteger]:
    """Return rows of plain tokens `(rows, length)`; raises InputError for rows of another kind."""
    if rows.dtype.names is None:
        return np.asarray(rows)
    raise InputError(
        f"{key}: looks at rows of plain tokens, but these have {', '.join(rows.dtype.names)}; give scores in a "
        f"table, or by a class of your own."
    )
