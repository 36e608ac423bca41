"""What a trained embedder makes of rows: embeddings of their queries."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from shoal.trainables.class_networks import scaled
from shoal.trainables.embedder import Tower
from shoal.trainables.embedder_settings import EmbedderSettings
from shoal.trainables.objectives.arithmetic import unit
from shoal.trainables.settings import DecoderShape
from shoal.trainables.text_tower import ExportedTower, TextTower

QUERIES_PER_PASS = 256
TOWER, ENCODER, TOKENS = "query.", "query.encoder.", "query.encoder.embedding.weight"


class EmbedJudge:
    """A trained embedder by its weights; `shape` is that of the decoder that its encoder began as, if any."""

    def __init__(
        self,
        settings: EmbedderSettings,
        weights: Mapping[str, NDArray[Any]],
        shape: DecoderShape | None = None,
        device: str = "cpu",
    ):
        self.settings, self.weights, self.shape, self.device = settings, weights, shape, device
        self.module: nn.Module | None = None

    def embeddings(self, column: NDArray[Any]) -> NDArray[np.float32]:
        """Return embeddings of length 1 of vectors `(rows, ...)`, or of texts' token ids, `(rows, width)`.

        Raises ValueError for texts of other tokens than the embedder's.
        """
        rows = column.reshape(len(column), -1)
        if TOKENS in self.weights and len(rows) and int(rows.max()) >= len(self.weights[TOKENS]):
            raise ValueError(
                f"must have the {len(self.weights[TOKENS])} tokens that the embedder was trained on"
            )
        if self.module is None:
            self.module = self.tower(rows.shape[1]).eval().to(self.device)
        found = [np.empty((0, self.settings.width), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(rows), QUERIES_PER_PASS):
                part = torch.from_numpy(np.array(rows[start : start + QUERIES_PER_PASS])).to(self.device)
                part = part.long() if TOKENS in self.weights else scaled(part)
                found.append(unit(self.module(part, 0.0, 0.0).float()).cpu().numpy())
        return np.concatenate(found)

    def tower(self, size: int) -> nn.Module:
        """Return the tower of queries for vectors, or texts, of this size."""
        made: nn.Module
        if TOKENS not in self.weights:
            made = Tower(size, self.settings)
        elif self.shape is not None:
            inner = {
                name.removeprefix(ENCODER): np.array(each)
                for name, each in self.weights.items()
                if name.startswith(ENCODER)
            }
            made = ExportedTower(self.settings, size, self.shape, inner)
        else:
            made = TextTower(self.settings, len(self.weights[TOKENS]), size)
        own = {
            name.removeprefix(TOWER): torch.from_numpy(np.array(each))
            for name, each in self.weights.items()
            if name.startswith(TOWER)
        }
        made.load_state_dict(own)
        return made
