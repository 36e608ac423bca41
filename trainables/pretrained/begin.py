"""What a pretrained member begins with: weights drawn anew, or an adapter that was exported before."""

from collections.abc import Sequence

import torch
from torch import nn

from shoal.trainables.pretrained.low_rank import adapters
from shoal.trainables.pretrained.peft_files import read_adapter
from shoal.trainables.pretrained.settings import Pretrained
from shoal.trainables.recipes.frozen import matching


def redraw(module: nn.Module, patterns: Sequence[str]) -> None:
    """Draw the weights anew that a pattern names, as transformers does, by torch's global random numbers."""
    names = {name for name, _ in module.named_parameters()}
    wanted = matching(names, patterns, "fresh")
    for path, part in module.named_modules():
        own = {f"{path}.{name}" if path else name for name, _ in part.named_parameters(recurse=False)}
        if own & wanted:
            for name, weight in part.named_parameters(recurse=False):
                # transformers leaves alone what it has marked as loaded
                weight.__dict__.pop("_is_hf_initialized", None)
                if weight.dim() < 2 and name == "weight":
                    nn.init.ones_(weight)
            part.__dict__.pop("_is_hf_initialized", None)
            module._init_weights(part)  # type: ignore[operator]


def begin_with(module: nn.Module, given: Pretrained) -> None:
    """Copy the exported adapter that `begin` names into a module's; raises ValueError if it does not fit.

    One of a smaller rank fills the first ranks. Its scale becomes ours, so the function stays the same.
    """
    if not given.begin or given.adapter is None:
        return
    weights, scale = read_adapter(given.begin)
    layers = dict(adapters(module))
    if layers.keys() != weights.keys():
        apart = ", ".join(sorted(layers.keys() ^ weights.keys())[:3])
        raise ValueError(f"begin must be an adapter of the same layers as `targets`, but only one has {apart}.")
    with torch.no_grad():
        for name, layer in layers.items():
            down, up = weights[name]
            if len(down) > len(layer.down) or down.shape[1] != layer.down.shape[1]:
                raise ValueError(
                    f"begin must be an adapter of at most rank {len(layer.down)} for this model, but "
                    f"{name} has {tuple(down.shape)}."
                )
            layer.down[: len(down)] = down.to(layer.down)
            layer.up.zero_()
            layer.up[:, : len(down)] = (up * (scale / layer.scale)).to(layer.up)
