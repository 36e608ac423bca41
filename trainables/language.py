"""A language model as a member: the decoder and its losses."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shoal.trainables.decoder import Decoder, initialise, token_losses
from shoal.trainables.member import Batches
from shoal.trainables.network import Network
from shoal.trainables.searched_numbers import FloatOrTensor, squared_log_partition, used
from shoal.trainables.settings import DecoderShape, Recipe


class LanguageModel(Network):
    """A decoder that trains on rows of tokens. Its score is minus the mean validation loss, in nats a token."""

    def __init__(
        self,
        shape: DecoderShape,
        recipe: Recipe,
        hyperparameters: dict[str, Any],
        batches: Batches,
        held_out: Mapping[str, Mapping[str, NDArray[np.integer]]],  # split -> group -> (rows, length)
        seed: int,
        device: str = "cpu",
    ):
        self.shape = shape
        super().__init__(recipe, hyperparameters, batches, held_out, seed, device)

    def build(self) -> nn.Module:
        model = Decoder(self.shape)
        initialise(model, self.generator)
        return model

    def loss(self, module: nn.Module, batch: Tensor, numbers: Mapping[str, FloatOrTensor]) -> Tensor:
        tokens = batch.long()
        return self.losses_of(module(tokens, numbers["dropout"]), tokens, numbers)

    def losses_of(self, logits: Tensor, tokens: Tensor, numbers: Mapping[str, FloatOrTensor]) -> Tensor:
        """Return each row's training loss `(rows,)`, in nats: its mean token loss, and the z-loss if used."""
        loss = token_losses(logits, tokens, numbers["label_smoothing"])
        if used(numbers["z_loss"]):
            loss = loss + numbers["z_loss"] * squared_log_partition(logits[:, :-1])
        return loss

    def row_losses(self, module: nn.Module, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of each row `(rows,)`, in nats, by group."""
        losses = {}
        for group, all_tokens in rows.items():
            parts = [part.long() for part in all_tokens.split(64)]
            losses[group] = torch.cat([token_losses(module(part), part) for part in parts])
        return losses

    def score(self, module: nn.Module, rows: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        losses = {group: each.mean().double() for group, each in self.row_losses(module, rows).items()}
        return -torch.stack(list(losses.values())).mean(), losses
