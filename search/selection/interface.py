"""What a scorer is: made once in each process, and then called with rows and their ids."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.search.errors import InputError
from shoal.search.selection.corpora import ScoreColumns

SMALLEST_LOSS = 1e-3  # a share of a smaller loss would be noise
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


def is_instruction(rows: Any) -> bool:
    """Say whether rows are records of tokens of which some count."""
    return {"tokens", "mask", "segment"} <= set(rows.dtype.names or ())


def tokens_of(rows: Any, key: str, answers: bool = False) -> NDArray[Any]:
    """Return rows of plain tokens `(rows, length)`, or with `answers` instruction rows as they are.

    Raises InputError for rows of another kind.
    """
    if rows.dtype.names is None or (answers and is_instruction(rows)):
        return np.asarray(rows)
    if "chosen_mask" in (rows.dtype.names or ()):
        raise InputError(
            f"{key}: looks at one answer, but these rows are pairs of answers; take ngrams, or ches, or give "
            f"scores in a table."
        )
    raise InputError(
        f"{key}: looks at rows of plain tokens, but these have {', '.join(rows.dtype.names)}; give scores in a "
        f"table, or by a class of your own."
    )


def has_texts(row_type: np.dtype[Any]) -> bool:
    """Say whether rows of a type are tokens, alone or with masks: `counted_texts` reads these."""
    names = set(row_type.names or ())
    return not names or {"tokens", "segment"} <= names or {"chosen", "chosen_mask"} <= names


def counted_texts(rows: Any, key: str) -> tuple[NDArray[Any], NDArray[np.integer] | None]:
    """Return the tokens of rows, `(rows, length)`, and the number of the text that each token is of.

    Padding has the number 0; None stands for rows of plain tokens. Of an instruction row each example is a
    text, with what is given and what is answered; of a preference row it is the prompt with the better answer.
    Raises InputError for rows of another kind.
    """
    if is_instruction(rows):
        return rows["tokens"], rows["segment"]
    if "chosen_mask" in (rows.dtype.names or ()):
        # an answer's last token is its end; what comes behind is padding
        answered = np.maximum.accumulate(rows["chosen_mask"][:, ::-1], axis=1)[:, ::-1]
        return rows["chosen"], answered
    return tokens_of(rows, key), None


def loss_difference(
    losses: NDArray[np.float32], base: NDArray[np.float32], relative: bool
) -> NDArray[np.float64]:
    below = base.astype(np.float64)
    found = losses - below
    return np.asarray(found / np.maximum(below, SMALLEST_LOSS) if relative else found)
