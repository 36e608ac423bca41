"""Models of timm by name, with weights out of local files alone: nothing is downloaded, and no code is run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from shoal.trainables.objectives.interface import require

WEIGHTS_FILE = "model.safetensors"  # as a folder of the hub has it
RGB = 3  # channels of published weights


def timm_model(name: str, weights: str, channels: int) -> Any:
    """Return a model without its head, for images of so many channels.

    Raises ValueError where there is no such model, or where the file lacks weights of it or fits no part.
    """
    import timm

    model = timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels)
    if weights:
        give_weights(model, weights)
    return model


def give_weights(model: nn.Module, place: str) -> None:
    """Load weights of the same model, whose head is left out, into a model, in place.

    Those for three channels serve images of other channels too, since timm fits a first layer to them.
    """
    from safetensors.torch import load_file

    found: dict[str, Tensor] = load_file(weights_file(place))
    wanted = model.state_dict()
    if lacking := sorted(wanted.keys() - found.keys()):
        raise ValueError(f"weights must be those of the model, but {place} lacks {', '.join(lacking[:3])}.")
    found |= fitted_to_channels(model, found)
    for name, value in wanted.items():
        if found[name].shape != value.shape:
            sizes = f"{tuple(found[name].shape)} in place of {tuple(value.shape)}"
            raise ValueError(f"weights must have the model's shapes, but {name} of {place} has {sizes}.")
    model.load_state_dict({name: found[name] for name in wanted})


def fitted_to_channels(model: Any, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the first layer, where they read three channels and the model other ones."""
    from timm.models import adapt_input_conv

    named = model.pretrained_cfg.get("first_conv") or ()
    layers = (named,) if isinstance(named, str) else named
    wanted, fitted = model.state_dict(), dict[str, Tensor]()
    for name in (f"{layer}.weight" for layer in layers):
        if name in wanted and found[name].dim() == 4 and found[name].shape[1] == RGB != wanted[name].shape[1]:
            fitted[name] = adapt_input_conv(wanted[name].shape[1], found[name])
    return fitted


def weights_file(place: str) -> str:
    """Return the file of safetensors that a file or a folder names; raises ValueError for another."""
    file = Path(place) / WEIGHTS_FILE if Path(place).is_dir() else Path(place)
    safe = file.suffix == ".safetensors"
    require(safe, "weights must be a file of safetensors, or a folder with model.safetensors", place)
    require(file.exists(), "weights must be a file that exists", str(file))
    return str(file)


def known_models() -> list[str]:
    """Return the names of all models of timm, which takes seconds to import."""
    import timm

    return [str(name) for name in timm.list_models()]
