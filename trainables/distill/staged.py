"""A teacher's outputs that were computed before the training, found again by the tokens of a row."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shoal.trainables.distill.teachers import Shown


def flatten(shown: Shown) -> NDArray[np.float16]:
    """Return a teacher's outputs with one line for each row: `(rows, numbers)`, in half precision."""
    lines: NDArray[np.float16] = torch.cat([part.flatten(1) for part in shown.tensors], 1).half().cpu().numpy()
    return lines


class BlockRow(NamedTuple):
    block: int
    row: int


class Staged:
    """Keeps the lines that `flatten` made, in the blocks they came in: views of shared memory stay views."""

    def __init__(self, widths: Sequence[int]):
        self.widths = widths  # the width of queries, of keys, of values, and of the stream if it was needed
        self.blocks: list[NDArray[np.float16]] = []
        self.places: dict[bytes, BlockRow] = {}

    def add(self, rows: NDArray[np.integer], lines: NDArray[np.float16]) -> None:
        for row, tokens in enumerate(rows):
            self.places[key(tokens)] = BlockRow(len(self.blocks), row)
        self.blocks.append(lines)

    def find(self, tokens: Tensor) -> Shown | None:
        """Return the outputs for these rows, or None if one of the rows is unknown."""
        found = [self.places.get(key(row)) for row in tokens.cpu().numpy()]
        lines = [self.blocks[place.block][place.row] for place in found if place is not None]
        if len(lines) < len(found):
            return None
        sizes = [tokens.shape[1] * width for width in self.widths]
        whole = torch.from_numpy(np.stack(lines)).to(tokens.device).float()
        parts = [part.unflatten(1, (tokens.shape[1], -1)) for part in whole.split(sizes, dim=1)]
        return Shown((parts[0], parts[1], parts[2]), parts[3] if len(parts) > 3 else None)


def key(row: NDArray[np.integer]) -> bytes:
    return row.astype(np.uint32).tobytes()
