"""A trained model that is trained no further, and gives the loss of each token that members train on."""

import hashlib
from collections import OrderedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shoal.trainables.decoder import losses_by_token

REMEMBERED_BATCHES = 1024  # batches whose losses are remembered


class Reference:
    """Shared by the members of a worker, which train one after another, mostly on the same batches."""

    def __init__(self, module: nn.Module, steps: int):
        self.module = module.eval().requires_grad_(False)
        self.steps = steps  # number of steps it was trained for
        self.known: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()

    @torch.no_grad()
    def losses(self, tokens: Tensor) -> NDArray[np.float32]:
        """Return the loss of each token except the first of a row, in nats: `(rows, length - 1)`."""
        key = hashlib.blake2b(tokens.cpu().numpy().tobytes(), digest_size=16).digest()
        if key not in self.known:
            self.known[key] = losses_by_token(self.module(tokens), tokens).cpu().numpy()
            if len(self.known) > REMEMBERED_BATCHES:
                self.known.popitem(last=False)
        return self.known[key]
