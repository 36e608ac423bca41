"""Conversion between our networks and those of transformers: shapes, names of weights, exported folders."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from shoal.trainables.distill.decoder import ElasticDecoder
from shoal.trainables.distill.elastic import ACTIVATIONS, Transformer
from shoal.trainables.distill.encoder import ElasticEncoder
from shoal.trainables.distill.spaces import ElasticShape

ENCODERS = ("bert", "roberta", "xlm-roberta", "electra")
DECODERS = ("llama", "mistral")
NETWORKS: dict[str, type[Transformer]] = {"encoder": ElasticEncoder, "decoder": ElasticDecoder}

# our name -> theirs; an encoder's blocks are `blocks.N` here and `encoder.layer.N` there
BERT = {
    "embedding.words": "embeddings.word_embeddings",
    "embedding.positions": "embeddings.position_embeddings",
    "embedding.types": "embeddings.token_type_embeddings",
    "embedding.norm": "embeddings.LayerNorm",
    "pooler": "pooler.dense",
}
BERT_BLOCK = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "rise": "intermediate.dense",
    "fall": "output.dense",
    "feed_norm": "output.LayerNorm",
}
LLAMA = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
LLAMA_BLOCK = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "attention_norm": "input_layernorm",
    "feed_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "rise": "mlp.up_proj",
    "fall": "mlp.down_proj",
}


def family_of(config: Any) -> str:
    """Return "encoder" or "decoder", or "" if students cannot take shape and weights from this kind."""
    activation = getattr(config, "hidden_act", "")
    if config.model_type in ENCODERS and activation in ACTIVATIONS:
        same = getattr(config, "embedding_size", config.hidden_size) == config.hidden_size
        return "encoder" if same else ""
    if config.model_type in DECODERS and activation in ACTIVATIONS:
        rope = getattr(config, "rope_parameters", None) or {}
        biased = getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False)
        return "decoder" if rope.get("rope_type", "default") == "default" and not biased else ""
    return ""


def shape_from_config(config: Any, family: str) -> ElasticShape:
    """Return our shape of a network of transformers, from its configuration."""
    heads, width = config.num_attention_heads, config.hidden_size
    common = {
        "family": family,
        "vocabulary": config.vocab_size,
        "layers": config.num_hidden_layers,
        "heads": heads,
        "width": width,
        "inner": config.intermediate_size,
        "activation": config.hidden_act,
    }
    if family == "encoder":
        return ElasticShape(
            positions=config.max_position_embeddings - skipped_positions(config),
            head_width=width // heads,
            epsilon=config.layer_norm_eps,
            types=config.type_vocab_size,
            **common,
        )
    rope = getattr(config, "rope_parameters", None) or {}
    return ElasticShape(
        positions=config.max_position_embeddings,
        head_width=getattr(config, "head_dim", None) or width // heads,
        epsilon=config.rms_norm_eps,
        base=float(rope.get("rope_theta", getattr(config, "rope_theta", 10000.0))),
        tied=config.tie_word_embeddings,
        **common,
    )


def skipped_positions(config: Any) -> int:
    # RoBERTa counts positions from the padding id on
    return config.pad_token_id + 1 if "roberta" in config.model_type else 0


def their_name(name: str, family: str) -> str:
    """Return the name that transformers has for one of our weights."""
    outer, inner, blocks = (
        (BERT, BERT_BLOCK, "encoder.layer") if family == "encoder" else (LLAMA, LLAMA_BLOCK, "model.layers")
    )
    module, _, kind = name.rpartition(".")
    if found := re.fullmatch(r"blocks\.(\d+)\.(\w+)", module):
        return f"{blocks}.{found.group(1)}.{inner[found.group(2)]}.{kind}"
    return f"{outer[module]}.{kind}"


def adopt(network: Transformer, family: str, weights: Mapping[str, Tensor], config: Any) -> list[str]:
    """Copy a teacher's weights into a network of its shape; return our names of weights that it lacks."""
    missing = []
    with torch.no_grad():
        for name, target in network.named_parameters():
            source = weights.get(their_name(name, family))
            if source is None:
                missing.append(name)
                continue
            if name == "embedding.positions.weight":
                source = source[skipped_positions(config) :]
            if source.shape[0] < target.shape[0] and name.split(".")[-2] in ("key", "value"):
                # in the teacher, each group of heads shares its keys and values
                groups = source.unflatten(0, (-1, network.shape.head_width))
                source = groups.repeat_interleave(target.shape[0] // source.shape[0], dim=0).flatten(0, 1)
            target.copy_(source)
    return missing


def host_heads(shape: ElasticShape) -> int | None:
    """Return how many heads a BERT needs to hold a network of this shape, or None if no BERT can.

    BERT's attention is as wide as its stream. Where ours is narrower, zeros fill up BERT's heads.
    """
    for heads in range(shape.heads, shape.width // shape.head_width + 1):
        if shape.width % heads == 0:
            return heads
    return None


def to_transformers(network: Transformer) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Return configuration and weights of the same function in transformers, or None if it has none."""
    if isinstance(network, ElasticEncoder):
        return to_bert(network)
    shape = network.shape
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.head_width,
        "intermediate_size": shape.inner,
        "hidden_act": shape.activation,
        "max_position_embeddings": shape.positions,
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.base,
        "tie_word_embeddings": shape.tied,
    }
    return config, {their_name(name, "decoder"): value for name, value in network.state_dict().items()}


def to_bert(network: ElasticEncoder) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    shape, heads = network.shape, host_heads(network.shape)
    if heads is None:
        return None
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": heads,
        "intermediate_size": shape.inner,
        "hidden_act": shape.activation,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": shape.types,
        "layer_norm_eps": shape.epsilon,
    }
    weights = {}
    for name, value in network.state_dict().items():
        part = name.split(".")[-2]
        if part in ("query", "key", "value"):
            value = widen(value, shape, heads)
            # a wider head divides its scores by the root of its own width, so queries are scaled up
            value = value * (shape.width / heads / shape.head_width) ** 0.5 if part == "query" else value
        elif part == "output" and name.endswith("weight"):
            value = widen(value.T, shape, heads).T
        weights[their_name(name, "encoder")] = value.contiguous()
    return config, weights


def widen(rows: Tensor, shape: ElasticShape, heads: int) -> Tensor:
    """Return rows whose first axis is our heads as `heads` heads of `width / heads`, filled up with zeros."""
    wide = rows.new_zeros(heads, shape.width // heads, *rows.shape[1:])
    wide[: shape.heads, : shape.head_width] = rows.unflatten(0, (shape.heads, shape.head_width))
    return wide.flatten(0, 1)
