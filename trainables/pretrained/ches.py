"""CHES: how likely a pair of answers is to displace likelihood (Razin et al., 2025).

Two answers whose states point the same way pull one another along: DPO then lowers the better answer too.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shoal.trainables.scoring import last_states

PAIRS_AT_A_TIME = 16


def summed_states(states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return sums of states `(rows, width)` over the places that predict an answer's tokens, and their number.

    `states` are `(rows, length, width)`; `mask` is 1 for the tokens of the answer. A token is predicted at the
    place before it, so padding never counts.
    """
    predicts = (mask[:, 1:] > 0).to(states.dtype)
    return (states[:, :-1] * predicts[..., None]).sum(dim=1), predicts.sum(dim=1)


def ches(better: Tensor, worse: Tensor, lengths: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Return <worse, better> - |better|^2 of sums of states `(rows, width)`, by length if lengths are given.

    The larger, the more likelihood is displaced. Equal answers, and those of one token, have 0.
    """
    along, own = (worse * better).sum(dim=-1), better.square().sum(dim=-1)
    if lengths is None:
        return along - own
    one, other = (each.clamp(min=1.0) for each in lengths)
    return along / (one * other) - own / one.square()


def pair_scores(module: Any, rows: dict[str, NDArray[Any]], normalised: bool) -> NDArray[np.float32]:
    """Return the score of each preference row, `(rows,)`, by a Decoder or a model of transformers."""
    device = next(module.parameters()).device
    found = []
    for start in range(0, len(rows["chosen"]), PAIRS_AT_A_TIME):
        sums = []
        for name in ("chosen", "rejected"):
            tokens, mask = (
                torch.from_numpy(rows[each][start : start + PAIRS_AT_A_TIME].astype(np.int64)).to(device)
                for each in (name, f"{name}_mask")
            )
            with torch.no_grad():
                sums.append(summed_states(last_states(module, tokens).float(), mask))
        lengths = (sums[0][1], sums[1][1]) if normalised else None
        found.append(ches(sums[0][0], sums[1][0], lengths))
    return torch.cat(found).cpu().numpy() if found else np.empty(0, np.float32)
