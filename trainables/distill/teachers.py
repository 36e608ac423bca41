"""Frozen teachers: any encoder or decoder of transformers in a local folder, or a network of ours.

transformers is imported only here, and only where a folder is opened.
"""

import re
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainables.distill.elastic import Transformer
from trainables.distill.families import NETWORKS, adopt, family_of, shape_of
from trainables.distill.relations import relations
from trainables.distill.spaces import Shape

SEPARATE = (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q_lin", "k_lin", "v_lin"))
FUSED = ("c_attn", "query_key_value")


class Card(NamedTuple):
    """What a teacher's folder says of it, known without its weights."""

    family: str  # "encoder", "decoder", or "" where students cannot take its shape and weights
    shape: Shape | None
    vocabulary: int
    layers: int
    width: int  # of its queries


class Teacher:
    """Shows queries, keys and values `(rows, length, width)` of one layer, the last by default."""

    def __init__(self, module: nn.Module, layer: int | None = None, heads: int = 1):
        self.module = module.eval().requires_grad_(False)
        self.heads = heads  # only a fused projection that keeps them apart needs to know
        self.caught: dict[str, Tensor] = {}
        if isinstance(module, Transformer):
            assert layer in (None, module.shape.layers - 1), "a network of ours shows its last layer"
        else:
            for name, part in projections(module, layer).items():
                part.register_forward_hook(self.catcher(name))

    def catcher(self, name: str) -> Any:
        def catch(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self.caught[name] = output

        return catch

    @torch.no_grad()
    def see(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        if isinstance(self.module, Transformer):
            return relations(self.module(tokens, mask))
        given = torch.ones_like(tokens) if mask is None else mask.to(tokens.dtype)
        self.module(input_ids=tokens, attention_mask=given)
        caught, self.caught = self.caught, {}
        if len(caught) == 3:
            q, k, v = caught.values()
            return q, k, v
        ((name, fused),) = caught.items()
        if name == "c_attn":  # GPT-2: queries, keys, values side by side
            q, k, v = fused.chunk(3, dim=-1)
        else:  # GPT-NeoX and BLOOM: side by side within each head
            q, k, v = (x.flatten(-2) for x in fused.unflatten(-1, (self.heads, 3, -1)).unbind(-2))
        return q, k, v


def projections(module: nn.Module, layer: int | None) -> dict[str, nn.Module]:
    """Return the modules of one layer that make queries, keys and values, in this order, or a fused one.

    Raises ValueError if there are none of a known name.
    """
    found: dict[int, dict[str, nn.Module]] = {}
    wanted = {*FUSED, *(name for three in SEPARATE for name in three)}
    for path, part in module.named_modules():
        name, number = path.rpartition(".")[2], re.search(r"\.(\d+)\.", f".{path}")
        if name in wanted and number:
            found.setdefault(int(number.group(1)), {})[name] = part
    chosen = found.get(max(found) if layer is None else layer, {}) if found else {}
    for three in SEPARATE:
        if chosen.keys() >= set(three):
            return {name: chosen[name] for name in three}
    for name in FUSED:
        if name in chosen:
            return {name: chosen[name]}
    raise ValueError(
        f"layer must be one with queries, keys and values of a known name, got "
        f"{'the last' if layer is None else layer} of {type(module).__name__} with {len(found)} such layers."
    )


def read_card(folder: str) -> Card:
    """Return what the folder's config.json says; raises OSError or ValueError if it cannot be read."""
    config = _config(folder)
    family = family_of(config)
    heads = getattr(config, "num_attention_heads", 1)
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    shape = shape_of(config, family) if family else None
    return Card(family, shape, config.vocab_size, config.num_hidden_layers, heads * head_width)


def _config(folder: str) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, local_files_only=True)


def load_teacher(
    folder: str, layer: int | None = None, device: str = "cpu"
) -> tuple[Teacher, Transformer | None]:
    """Return the teacher of a folder, and its weights as a network of ours where its kind is known.

    The network may be cut into students; what the teacher lacks of it keeps its random start.
    """
    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = _config(folder)
    family = family_of(config)
    kind = AutoModelForCausalLM if family == "decoder" else AutoModel
    module: nn.Module = kind.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    module = module.to(torch.device(device))
    teacher = Teacher(module, layer, getattr(config, "num_attention_heads", 1))
    if not family:
        return teacher, None
    network = NETWORKS[family](shape_of(config, family)).to(device)
    adopt(network, family, module.state_dict(), config)
    return teacher, network
