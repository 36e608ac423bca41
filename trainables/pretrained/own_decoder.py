"""An exported decoder of ours, called as models of transformers are; its weights have their own names."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shoal.trainables.decoder import Decoder, rotary_angles
from shoal.trainables.settings import DecoderShape


class WithLogits(NamedTuple):
    logits: Tensor  # (rows, length, vocabulary)


class ReadingDecoder(Decoder):
    """A decoder that takes rows as `pretrained.causal` gives them, of any length: positions have no weights."""

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,  # True where a place may look, (rows, 1, length, length)
        position_ids: Tensor | None = None,
        use_cache: bool = False,
    ) -> WithLogits:
        angles = rotary_angles(input_ids.shape[1], self.shape.width // self.shape.heads)
        cosine, sine = (each.to(input_ids.device) for each in angles)
        if position_ids is not None:
            cosine, sine = cosine[position_ids][:, None], sine[position_ids][:, None]
        x = self.through(self.embedding(input_ids), cosine, sine, 0.0, attention_mask)
        return WithLogits(self.logits_of(x))


def own_outline(config: dict[str, Any]) -> ReadingDecoder:
    """Return the decoder of a configuration, with weights that are not set."""
    return ReadingDecoder(replace(DecoderShape(**config["shape"]), sequence_length=1))


def own_decoder(folder: str, config: dict[str, Any], dtype: Any) -> ReadingDecoder:
    """Return an exported decoder in evaluation mode, of this type, or as it is stored if it is "auto"."""
    from safetensors.torch import load_file

    made = own_outline(config)
    stored = load_file(str(Path(folder, "model.safetensors")))
    made.load_state_dict(stored if dtype == "auto" else {name: each.to(dtype) for name, each in stored.items()})
    return made.to(torch.float32 if dtype == "auto" else dtype).eval()
