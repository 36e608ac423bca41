"""Models of timm by name, with weights out of local files alone: nothing is downloaded, and no code is run."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from shoal.trainables.objectives.interface import require

WEIGHTS_FILE = "model.safetensors"  # as a folder of the hub has it


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
    """Load weights of the same model, whose head is left out, into a model, in place."""
    from safetensors.torch import load_file

    found: dict[str, Tensor] = load_file(weights_file(place))
    wanted = model.state_dict()
    lacking = sorted(wanted.keys() - found.keys())
    require(not lacking, f"weights must be those of the model, but {place} lacks", ", ".join(lacking[:3]))
    odd = [name for name, value in wanted.items() if found[name].shape != value.shape]
    told = [f"{name} {tuple(found[name].shape)} in place of {tuple(wanted[name].shape)}" for name in odd[:1]]
    require(not odd, f"weights must have the model's shapes, but {place} has", "".join(told))
    model.load_state_dict({name: found[name] for name in wanted})


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
