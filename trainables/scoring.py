"""How hard rows of tokens are for a trained decoder."""

import numpy as np
import torch
from numpy.typing import NDArray

from shoal.trainables.decoder import Decoder, token_losses

ROWS_PER_PASS = 128


def row_losses(model: Decoder, rows: NDArray[np.integer]) -> NDArray[np.float32]:
    """Return the mean next-token loss of each row of tokens `(rows, sequence_length)`, in nats: `(rows,)`."""
    device = model.embedding.weight.device
    found = np.empty(len(rows), np.float32)
    with torch.inference_mode():
        for start in range(0, len(rows), ROWS_PER_PASS):
            part = torch.from_numpy(rows[start : start + ROWS_PER_PASS].astype(np.int64)).to(device)
            found[start : start + ROWS_PER_PASS] = token_losses(model(part), part).cpu().numpy()
    return found
