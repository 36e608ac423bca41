"""Frozen teachers: any encoder or decoder of transformers in a local folder, or one of our networks.

transformers is imported only here, and only when a folder is opened.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shoal.trainables.distill.decoder import ElasticDecoder
from shoal.trainables.distill.elastic import Transformer
from shoal.trainables.distill.families import NETWORKS, adopt, family_of, shape_from_config
from shoal.trainables.distill.meal import soft_target
from shoal.trainables.distill.relations import relations
from shoal.trainables.distill.spaces import ElasticShape

SEPARATE = (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q_lin", "k_lin", "v_lin"))
LEAST_PROBABILITY = 1e-30  # keeps a logarithm finite
FUSED = ("c_attn", "query_key_value")


class Card(NamedTuple):
    """What is known of a teacher from its folder, without its weights."""

    family: str  # "encoder", "decoder", or "" if students cannot take its shape and weights
    shape: ElasticShape | None
    vocabulary: int
    layers: int
    width: int  # width of its queries


class Shown(NamedTuple):
    """The outputs of a network for rows, as far as they were asked for."""

    relations: tuple[Tensor, Tensor, Tensor]  # queries, keys and values (rows, length, width)
    hidden: Tensor | None = None  # the stream after the last layer (rows, length, width)
    logits: Tensor | None = None  # next-token logits (rows, length, vocabulary)

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.relations, *(x for x in (self.hidden, self.logits) if x is not None)]


class Teacher:
    """Gives queries, keys and values `(rows, length, width)` of one layer, the last by default."""

    def __init__(self, module: nn.Module, layer: int | None = None, heads: int = 1):
        self.module = module.eval().requires_grad_(False)
        self.heads = heads  # number of query heads
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

    def see(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        return self.show(tokens, mask).relations

    @torch.no_grad()
    def show(
        self, tokens: Tensor, mask: Tensor | None = None, hidden: bool = False, logits: bool = False
    ) -> Shown:
        """Return the relations of tokens `(rows, length)`, and on request the stream and the logits."""
        if isinstance(self.module, Transformer):
            seen: Any = self.module(tokens, mask)
            said = (
                self.module.logits(seen.hidden) if logits and isinstance(self.module, ElasticDecoder) else None
            )
            return Shown(relations(seen), seen.hidden if hidden else None, said)
        given = torch.ones_like(tokens) if mask is None else mask.to(tokens.dtype)
        found = self.module(input_ids=tokens, attention_mask=given, output_hidden_states=hidden)
        return Shown(
            self.take_caught(), found.hidden_states[-1] if hidden else None, found.logits if logits else None
        )

    def take_caught(self) -> tuple[Tensor, Tensor, Tensor]:
        caught, self.caught = self.caught, {}
        if len(caught) == 3:
            q, k, v = caught.values()
            return q, self.per_head(k, q), self.per_head(v, q)
        ((name, fused),) = caught.items()
        if name == "c_attn":  # GPT-2 has queries, keys and values side by side
            q, k, v = fused.chunk(3, dim=-1)
        else:  # GPT-NeoX and BLOOM have them side by side within each head
            q, k, v = (x.flatten(-2) for x in fused.unflatten(-1, (self.heads, 3, -1)).unbind(-2))
        return q, k, v

    def per_head(self, x: Tensor, queries: Tensor) -> Tensor:
        """Return keys or values with a copy for each head, where groups of heads share them."""
        if x.shape[-1] == queries.shape[-1]:
            return x
        groups = x.unflatten(-1, (-1, queries.shape[-1] // self.heads))
        return groups.repeat_interleave(queries.shape[-1] // x.shape[-1], dim=-2).flatten(-2)


class Ensemble:
    """Several teachers with one tokenizer: relations and stream are the first one's, logits are those of all.

    Their probabilities are averaged, not their logits (MEAL V2, Shen and Savvides, 2020).
    """

    def __init__(self, teachers: Sequence[Teacher]):
        self.first, self.teachers = teachers[0], teachers

    def show(
        self, tokens: Tensor, mask: Tensor | None = None, hidden: bool = False, logits: bool = False
    ) -> Shown:
        shown = self.first.show(tokens, mask, hidden, logits)
        if not logits:
            return shown
        others = [teacher.show(tokens, mask, logits=True).logits for teacher in self.teachers[1:]]
        # logarithms of probabilities are logits for them
        mean = soft_target(torch.stack([x for x in (shown.logits, *others) if x is not None]))
        return shown._replace(logits=mean.clamp_min(LEAST_PROBABILITY).log())


def projections(module: nn.Module, layer: int | None) -> dict[str, nn.Module]:
    """Return the modules of one layer that make queries, keys and values, in this order, or the fused module.

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
    """Return a teacher's card from its config.json; raises OSError or ValueError if that cannot be read."""
    config = _config(folder)
    family = family_of(config)
    heads = getattr(config, "num_attention_heads", 1)
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    shape = shape_from_config(config, family) if family else None
    return Card(family, shape, config.vocab_size, config.num_hidden_layers, heads * head_width)


def _config(folder: str) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, local_files_only=True)


def load_teacher(
    folder: str, layer: int | None = None, device: str = "cpu"
) -> tuple[Teacher, Transformer | None]:
    """Return the teacher of a folder, and its weights as one of our networks, or None if its kind is unknown.

    Students may be cut out of the network. Weights that the teacher lacks keep their random start.
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
    network = NETWORKS[family](shape_from_config(config, family)).to(device)
    adopt(network, family, module.state_dict(), config)
    return teacher, network
