"""A trained decoder that scores rows: how hard each of them is for it."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.decoder import Decoder, token_losses
from trainables.settings import Shape

ROWS = 128  # passed together


class RowLosses:
    """Rows of tokens `(rows, sequence_length)` in, the mean next-token loss of each in nats out: `(rows,)`."""

    def __init__(self, shape: Shape, weights: Mapping[str, NDArray[np.floating]], device: str = "cpu"):
        self.device = torch.device(device)
        self.module = Decoder(shape)
        self.module.load_state_dict({name: torch.from_numpy(np.array(each)) for name, each in weights.items()})
        self.module.to(self.device).eval()

    def __call__(self, rows: NDArray[np.uint16]) -> NDArray[np.float32]:
        found = np.empty(len(rows), np.float32)
        with torch.inference_mode():
            for start in range(0, len(rows), ROWS):
                part = torch.from_numpy(rows[start : start + ROWS].astype(np.int64)).to(self.device)
                found[start : start + ROWS] = token_losses(self.module(part), part).cpu().numpy()
        return found
