"""Adapters as peft writes and reads them: `adapter_config.json` and `adapter_model.safetensors`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shoal.trainables.pretrained.settings import LowRank

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BEFORE, DOWN, UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
SIMPLEST = {"bias": "none", "use_rslora": False, "use_dora": False, "rank_pattern": {}, "alpha_pattern": {}}


def adapter_config(given: LowRank, rank: int, base: str) -> dict[str, Any]:
    """Return what peft must know of an adapter with so many ranks in use; their scale stays as it trained."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": given.scale * rank,
        "lora_dropout": given.dropout,
        "target_modules": list(given.targets),
        "fan_in_fan_out": False,
        "inference_mode": True,
        **SIMPLEST,
    }


def adapter_weights(weights: Mapping[str, NDArray[Any]], rank: int) -> dict[str, NDArray[Any]]:
    """Return a member's weights under peft's names, with the ranks that are in use."""
    found = {}
    for layer, (down, up) in whole_adapters(weights, rank).items():
        found[f"{BEFORE}{layer}{DOWN}"], found[f"{BEFORE}{layer}{UP}"] = down, up
    return found


def whole_adapters(
    weights: Mapping[str, NDArray[Any]], rank: int | None = None
) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Return layer -> (down, up) of a member's weights, with so many ranks or all.

    What an adapter began with, and takes off again, makes as many ranks more.
    """
    found = {}
    for layer in [name.removesuffix(".down") for name in weights if name.endswith(".down")]:
        down, up = weights[f"{layer}.down"][:rank], weights[f"{layer}.up"][:, :rank]
        if f"{layer}.began_down" in weights:
            down = np.concatenate([down, weights[f"{layer}.began_down"]])
            up = np.concatenate([up, -weights[f"{layer}.began_up"]], axis=1)
        found[layer] = np.ascontiguousarray(down), np.ascontiguousarray(up)
    return found


def read_adapter(folder: str) -> tuple[dict[str, tuple[Tensor, Tensor]], float]:
    """Return layer -> (down, up) of a folder's adapter, and its scale; raises ValueError if it is not plain."""
    from safetensors.torch import load_file

    config = read_adapter_config(folder)
    tensors = load_file(str(Path(folder, WEIGHTS)))
    layers = [name.removeprefix(BEFORE).removesuffix(DOWN) for name in tensors if name.endswith(DOWN)]
    found = {
        layer: (tensors[f"{BEFORE}{layer}{DOWN}"], tensors[f"{BEFORE}{layer}{UP}"]) for layer in sorted(layers)
    }
    return found, config["lora_alpha"] / config["r"]


def read_adapter_config(folder: str) -> dict[str, Any]:
    """Return an adapter's configuration; raises ValueError if it is not there, or does more than ours do."""
    try:
        config: dict[str, Any] = json.loads(Path(folder, CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} must hold an adapter, with {CONFIG} and {WEIGHTS}.") from error
    odd = [name for name, plain in SIMPLEST.items() if config.get(name, plain) not in (plain, None)]
    if config.get("peft_type") != "LORA" or odd:
        named = odd[0] if odd else f"peft_type {config.get('peft_type')}"
        raise ValueError(f"{folder} must hold a plain LoRA adapter, but has {named}.")
    return config


def merge_adapter(module: torch.nn.Module, weights: Mapping[str, NDArray[Any]], scale: float) -> None:
    """Add an adapter, a member's weights by name, to the weights of a model, in place."""
    with torch.no_grad():
        for layer, parts in whole_adapters(weights).items():
            base: Any = module.get_submodule(layer).weight
            down, up = (torch.from_numpy(np.array(part)) for part in parts)
            base.copy_(base.float() + scale * (up @ down).to(base.device))


def add_adapter(module: torch.nn.Module, folder: str) -> None:
    """Add the adapter in a folder to the weights of its base, in place.

    The base may be the model alone, without the head that the adapter's names count from. Raises ValueError
    for a layer that it has not.
    """
    weights, scale = read_adapter(folder)
    layers = dict(module.named_modules())
    inside = getattr(module, "base_model_prefix", "") + "."
    with torch.no_grad():
        for name, (down, up) in weights.items():
            layer: Any = layers.get(name, layers.get(name.removeprefix(inside)))
            if layer is None:
                raise ValueError(f"{folder} has an adapter of {name}, which its base has not.")
            layer.weight += scale * (up.float() @ down.float()).to(layer.weight)
