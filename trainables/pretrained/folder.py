"""A model's folder as a module of transformers: only its own code is run, and only safetensors are read.

transformers is imported only here and when a folder is opened.
"""

import copy
import json
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shoal.trainables.precision import computing
from shoal.trainables.pretrained.own_decoder import ReadingDecoder, own_decoder, own_outline
from shoal.trainables.pretrained.settings import own_config

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

# modules that members of this process share, by folder, precision and device; each lives as long as a member
_opened: weakref.WeakValueDictionary[tuple[str, str, str], nn.Module] = weakref.WeakValueDictionary()


def open_base(folder: str, precision: str, device: torch.device, kept: bool = True) -> nn.Module:
    """Return a folder's model. One that is kept is frozen, and the same one at the next call.

    Frozen layers lie in memory as they compute: in bfloat16 if the precision says so. All else is float32.
    What is stored as it is wanted is mapped from its file, where the device is the CPU.
    """
    if not kept:
        whole = loaded_model(folder, torch.float32).to(device)
        whole.plain_head = has_plain_head(whole.eval())  # type: ignore[assignment]
        return whole
    key = os.path.realpath(folder), precision, str(device)
    known = _opened.get(key)
    if known is None:
        known = loaded_model(folder, torch.float32 if precision == "float32" else "auto")
        settle(known, torch.float32 if precision == "float32" else torch.bfloat16)
        if device.type == "cpu":
            map_weights(known, folder)
        known = known.to(device).eval().requires_grad_(False)
        with computing(precision, device):
            known.plain_head = has_plain_head(known)  # type: ignore[assignment]
        _opened[key] = known
    return known


def judging_model(folder: str, kind: str, device: str) -> nn.Module:
    """Return a folder's model in float32 and evaluation mode, whose weights are frozen.

    `kind` is a class of transformers, such as AutoModelForCausalLM. Raises ValueError where weights are
    missing, which transformers would draw at random.
    """
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    opened, told = getattr(transformers, kind).from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=torch.float32,
        attn_implementation="sdpa",
        output_loading_info=True,
    )
    # the pooler is no part of the hidden states
    missing = sorted(name for name in told["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ValueError(f"it has no weights for {', '.join(missing[:3])}")
    found: nn.Module = opened.to(torch.device(device)).eval().requires_grad_(False)
    return found


@torch.no_grad()
def is_causal(module: nn.Module) -> bool:
    """Say whether the logits of a place do not depend on later tokens."""
    tokens = torch.arange(1, 5, device=next(module.parameters()).device).repeat(2, 1)
    tokens[1, 3] = 0
    first, second = module(tokens).logits[:, :3]
    return torch.allclose(first, second, atol=1e-4, rtol=1e-4)


def loaded_model(folder: str, dtype: Any) -> nn.Module:
    """Return a new module with a folder's weights, each in memory of its own."""
    if (own := own_config(folder)) is not None:
        return own_decoder(folder, own, dtype)
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    found: nn.Module = AutoModelForCausalLM.from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=dtype,
        attn_implementation="sdpa",
    )
    return found


def settle(module: nn.Module, dtype: torch.dtype) -> None:
    """Give linear layers this type, and all other weights, a tied embedding too, float32, in place."""
    layers = {id(part.weight) for part in module.modules() if isinstance(part, nn.Linear)}
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    for weight in module.parameters():
        wanted = dtype if id(weight) in layers - tables else torch.float32
        weight.data = weight.data.to(wanted)


def map_weights(module: nn.Module, folder: str) -> None:
    """Map each weight from its file that is stored as it is in memory: processes then share its pages."""
    stored = mapped(folder)
    for name, weight in module.named_parameters():
        found = stored.get(name)
        if found is not None and found.dtype == weight.dtype and found.shape == weight.shape:
            weight.data = found


def mapped(folder: str) -> dict[str, Tensor]:
    """Return a folder's tensors by their names in its files, mapped from there."""
    from safetensors import safe_open

    found: dict[str, Tensor] = {}
    for file in weight_files(folder):
        with safe_open(str(file), "pt") as tensors:
            found |= {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    return found


def weight_files(folder: str) -> list[Path]:
    """Return the files with a model's weights; none if it has no safetensors."""
    if (index := Path(folder, INDEX)).exists():
        named = json.loads(index.read_text())["weight_map"].values()
        return [Path(folder, name) for name in sorted(set(named))]
    whole = Path(folder, WEIGHTS)
    return [whole] if whole.exists() else []


def member_module(template: nn.Module) -> nn.Module:
    """Return a module of its own that shares all weights and buffers with the given one."""
    shared = {id(tensor): tensor for tensor in tensors_of(template)}
    return copy.deepcopy(template, shared)


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


@torch.no_grad()
def has_plain_head(module: Any) -> bool:
    """Say whether the logits are one linear layer of the stream, and nothing else is done to them."""
    if isinstance(module, ReadingDecoder):
        return False  # its head is the table of its tokens, and no layer
    inner, head = module.base_model, module.get_output_embeddings()
    if inner is module or not isinstance(head, nn.Linear):
        return False
    tokens = torch.arange(4, device=head.weight.device)[None]
    stream = getattr(inner(input_ids=tokens, use_cache=False), "last_hidden_state", None)
    if stream is None:
        return False
    logits: Tensor = module(input_ids=tokens, use_cache=False).logits
    return torch.equal(logits, head(stream))


def outline(folder: str) -> nn.Module:
    """Return a folder's model without weights, from its config.json alone."""
    if (own := own_config(folder)) is not None:
        with torch.device("meta"):
            return own_outline(own)
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        found: nn.Module = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return found
