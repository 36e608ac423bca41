"""A tiny Llama in a folder, and members that train it."""

import functools
import tempfile
from typing import Any

import numpy as np

from shoal.trainables.batches import Shuffled
from shoal.trainables.pretrained.settings import LowRank, Pretrained
from shoal.trainables.settings import Recipe

VOCABULARY, LENGTH = 64, 12


@functools.cache
def tiny_llama(tied: bool = True, dtype: str = "float32", vocabulary: int = VOCABULARY) -> str:
    """Return a folder with a Llama of two layers, with weights large enough to attend."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
    )
    module = LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.dim() == 2:
                weight.normal_(0.0, weight.shape[1] ** -0.5)
    folder = tempfile.mkdtemp(prefix="tiny-llama-")
    module.to(getattr(torch, dtype)).save_pretrained(folder)
    return folder


def token_rows(rows: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCABULARY, (rows, LENGTH)).astype(np.uint16)


def instruction_rows(rows: int = 24, seed: int = 0) -> dict[str, np.ndarray]:
    """Return rows of two examples each, in 5 and 4 places; the second half of each example counts."""
    segment = np.array([1] * 5 + [2] * 4 + [0] * (LENGTH - 9), np.uint16)
    mask = np.array([0, 0, 1, 1, 1, 0, 0, 1, 1] + [0] * (LENGTH - 9), np.uint8)
    return {
        "tokens": token_rows(rows, seed),
        "mask": np.tile(mask, (rows, 1)),
        "segment": np.tile(segment, (rows, 1)),
    }


def letters(folder: str) -> None:
    """Write a tokenizer of bytes, and one token that ends texts, into a folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=alphabet | {"</s>": len(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>").save_pretrained(folder)


@functools.cache
def tiny_model() -> str:
    """Return a folder with a Llama that reads letters, and its tokenizer."""
    folder = tiny_llama(vocabulary=260)
    letters(folder)
    return folder


ADAPTER = LowRank(rank=4, alpha=8.0)


def causal(
    seed: int = 0,
    adapter: LowRank | None = ADAPTER,
    rows: Any = None,
    batch: int = 4,
    path: str = "",
    given: dict[str, Any] | None = None,
    recipe: dict[str, Any] | None = None,
    **hyperparameters: Any,
) -> Any:
    from shoal.trainables.pretrained.causal import CausalModel

    made = Pretrained(path or tiny_llama(), adapter, **(given or {}))
    held_out = {"validation": {"plain": token_rows(6, 1), "asked": instruction_rows(6, 2)}}
    chosen = Recipe(**{"steps": 40, "warmup": 2, "learning_rate": 0.01} | (recipe or {}))
    batches = Shuffled(token_rows() if rows is None else rows, batch, seed)
    return CausalModel(chosen, hyperparameters, batches, held_out, seed, pretrained=made)


def causal_run(directory: str, *, groups: dict[str, str], **changes: Any) -> dict[str, Any]:
    """Return the values of a file that trains adapters of the tiny model."""
    values: dict[str, Any] = {
        "name": "tiny",
        "directory": f"{directory}/run",
        "trainable": "causal_lm",
        "model": {"path": tiny_model(), "adapter": {"kind": "lora", "rank": 4, "alpha": 8}},
        "data": {"corpus": f"{directory}/corpus", "groups": groups, "sequence_length": 32, "megabytes": 0.05},
        "training": {"steps": 6, "batch": 4, "warmup": 2, "evaluation_rows": 4},
        "hyperparameters": {
            "learning_rate": {"kind": "float", "low": 0.001, "high": 0.03, "log": True},
            "rank": {"kind": "int", "low": 1, "high": 4},
        },
        "population": {"members": 4, "interval": 2, "exploit": {"kind": "truncation", "fraction": 0.25}},
        "cluster": {"broods": 1, "workers_per_brood": 2},
    }
    for key, value in changes.items():
        section, _, inner = key.partition("__")
        if inner:
            values[section] = {**values[section], inner: value}
        else:
            values[section] = value
    if "rank" in values["hyperparameters"]:
        values.setdefault("price", 0.01)
    return values
