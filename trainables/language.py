"""A language model as a member: the decoder and its losses."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from shoal.trainables.decoder import Decoder, initialise, losses_by_token, token_losses
from shoal.trainables.network import Network
from shoal.trainables.searched_numbers import FloatOrTensor, squared_log_partition, used
from shoal.trainables.settings import DecoderShape


class LanguageModel(Network):
    """A decoder that trains on rows of tokens. Its score is minus the mean validation loss, in nats a token."""

    takes = frozenset({"tokens"})
    by_row = True
    shape: DecoderShape

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

    def parts(self, module: nn.Module, batch: Tensor) -> Tensor:
        """Return the loss of each token except the first of a row, in nats: `(rows, length - 1)`."""
        tokens = batch.long()
        return losses_by_token(module(tokens), tokens)

    def losses_and_parts(
        self, module: nn.Module, batch: Tensor, numbers: Mapping[str, FloatOrTensor]
    ) -> tuple[Tensor, Tensor]:
        tokens = batch.long()
        logits = module(tokens, numbers["dropout"])
        with torch.no_grad():  # without dropout one pass serves both
            sober = module(tokens, 0.0) if numbers["dropout"] else logits
            parts = losses_by_token(sober, tokens)
        return self.losses_of(logits, tokens, numbers), parts
