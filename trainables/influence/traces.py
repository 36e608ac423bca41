"""What passes through the linear layers of a model: their inputs, and the slopes of the loss at their outputs.

A row's gradient of a layer's weight is the sum over its tokens of `slope outer input`, so no gradient of the
weights is ever computed, and the model's weights may be frozen.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class LayerTrace(NamedTuple):
    """What one layer saw of a batch."""

    inputs: Tensor  # (rows, tokens, in), with a last input of 1 if the layer has a bias
    slopes: Tensor  # (rows, tokens, out)

    def gradients(self) -> Tensor:
        """Return each row's gradient of the weight, the bias behind it: `(rows, out, in)`."""
        return self.slopes.transpose(1, 2) @ self.inputs


def traced_layers(module: nn.Module, patterns: Sequence[str] = ("*",)) -> dict[str, nn.Module]:
    """Return the linear layers whose names fit a pattern, but for those that write tokens' logits.

    Raises ValueError where none fits.
    """
    head = getattr(module, "get_output_embeddings", lambda: None)()
    layers = {
        name: part for name, part in module.named_modules() if is_linear(part) and part is not head and name
    }
    if isinstance(module, nn.Linear):
        layers = {"": module}
    found = {name: part for name, part in layers.items() if any(fnmatchcase(name, each) for each in patterns)}
    if not found:
        raise ValueError(
            f"layers must name linear layers, such as {next(iter(layers), 'none')}, got {patterns}."
        )
    return found


def is_linear(part: nn.Module) -> bool:
    # transformers' Conv1D is a linear layer whose weight is stored the other way round
    return isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"


def traces(
    layers: Mapping[str, nn.Module], losses: Callable[[], Tensor]
) -> tuple[dict[str, LayerTrace], Tensor]:
    """Return each layer's trace of one computation of losses `(rows,)`, and the losses."""
    with watching(layers) as seen, torch.enable_grad():
        found = losses()
        outputs = [output for calls in seen.values() for _, output in calls]
        slopes = iter(torch.autograd.grad(found.sum(), outputs))
    traced = {
        name: joined_calls(name, layers[name], calls, [next(slopes) for _ in calls], len(found))
        for name, calls in seen.items()
    }
    return traced, found.detach()


def joined_calls(
    name: str, layer: nn.Module, calls: list[tuple[Tensor, Tensor]], slopes: list[Tensor], rows: int
) -> LayerTrace:
    """Return one trace of all calls of a layer in a pass: a layer that is called twice has twice the tokens."""
    if any(len(given) != rows for given, _ in calls):
        raise ValueError(
            f"layer {name} must see the rows one by one, but mixes them; leave it out of `layers`."
        )
    inputs = torch.cat([token_by_token(given) for given, _ in calls], dim=1)
    if getattr(layer, "bias", None) is not None:
        inputs = torch.cat([inputs, inputs.new_ones(*inputs.shape[:2], 1)], dim=2)
    return LayerTrace(inputs, torch.cat([token_by_token(each) for each in slopes], dim=1))


def token_by_token(values: Tensor) -> Tensor:
    """Return values `(rows, ..., width)` as `(rows, tokens, width)`, in float32 at least."""
    flat = values.detach().reshape(len(values), -1, values.shape[-1])
    return flat if flat.dtype == torch.float64 else flat.float()


@contextmanager
def watching(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, list[tuple[Tensor, Tensor]]]]:
    """Note inputs and outputs of layers at every call."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}

    def note(name: str) -> Callable[..., Any]:
        def hook(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            if not output.requires_grad:
                output.requires_grad_()  # the first layer of a frozen model begins the graph
            seen[name].append((given[0], output))

        return hook

    handles = [layer.register_forward_hook(note(name)) for name, layer in layers.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
