"""The classifier's network: what makes an embedding of a row, and the heads on it."""

from collections.abc import Mapping, Sequence, Set
from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from shoal.trainables.augmentation import changed_rows
from shoal.trainables.class_steps import Style
from shoal.trainables.classifier_settings import CHANNELS, ClassifierSettings
from shoal.trainables.objectives.arithmetic import unit
from shoal.trainables.searched_numbers import FloatOrTensor, dropout
from shoal.trainables.timm_models import timm_model

PROJECTED = 64  # numbers of a projected embedding
PLACES = 4  # along each side of an image that convolutions end with
SCALE = 16.0  # cosines are multiplied by it before a softmax


class HiddenLayers(nn.Module):
    """Hidden layers on flat rows `(rows, features)`."""

    def __init__(self, features: int, width: int, layers: int):
        super().__init__()
        sizes = [features, *[width] * layers]
        self.each = nn.ModuleList(nn.Linear(one, other) for one, other in pairwise(sizes))
        self.width = width

    def forward(self, x: Tensor, rate: FloatOrTensor) -> Tensor:
        for layer in self.each:
            x = dropout(layer(x).relu(), rate, self.training)
        return x


class Convolutions(nn.Module):
    """Convolutions that halve an image each, with channels that double, and means over a grid of places."""

    def __init__(self, channels: int, width: int, layers: int, styled: bool = False):
        super().__init__()
        sizes = [channels, *(width * 2**place for place in range(layers))]
        self.each = nn.ModuleList(nn.Conv2d(one, other, 3, 2, 1, bias=False) for one, other in pairwise(sizes))
        self.norms = nn.ModuleList(nn.GroupNorm(1, size) for size in sizes[1:])
        self.styles = nn.ModuleList(Style(size) for size in (sizes[1:-1] or sizes[1:]) if styled)
        self.width = sizes[-1] * PLACES**2

    def forward(self, x: Tensor, rate: FloatOrTensor) -> Tensor:
        for place, (layer, norm) in enumerate(zip(self.each, self.norms, strict=True)):
            x = norm(layer(x)).relu()
            x = self.styles[place](x) if place < len(self.styles) else x
        flat = adaptive_avg_pool2d(x, PLACES).flatten(start_dim=1)
        return dropout(flat, rate, self.training)


class Nothing(nn.Module):
    """Frozen features, taken as they are."""

    def __init__(self, features: int):
        super().__init__()
        self.width = features

    def forward(self, x: Tensor, rate: FloatOrTensor) -> Tensor:
        return dropout(x, rate, self.training)


class TimmBody(nn.Module):
    """A model of timm without its head, with drawn weights or those of a file of safetensors."""

    def __init__(self, settings: ClassifierSettings, channels: int):
        super().__init__()
        self.model = timm_model(settings.model, settings.weights, channels)
        self.width = int(self.model.num_features)

    def forward(self, x: Tensor, rate: FloatOrTensor) -> Tensor:
        return dropout(self.model(x), rate, self.training)


class ClassHead(nn.Module):
    """Values of the classes for embeddings `(rows, width)`, by a linear map or by angles."""

    def __init__(self, width: int, classes: int, cosine: bool, prior: Tensor | None = None):
        super().__init__()
        self.cosine = cosine
        self.weight = nn.Parameter(torch.randn(classes, width) * (1.0 if cosine else width**-0.5))
        self.bias = nn.Parameter(torch.zeros(classes))
        if prior is not None:
            # with a weight of zero the first prediction is the prior exactly
            self.weight.data.zero_()
            self.bias.data.copy_(prior.clamp(min=1e-6).log())

    def forward(self, x: Tensor) -> Tensor:
        if self.cosine:
            return SCALE * unit(x) @ unit(self.weight).T + self.bias
        return x @ self.weight.T + self.bias


class Memory(nn.Module):
    """The state of an objective, as buffers: it is copied, saved and stacked with the weights."""

    def __init__(self, first: Mapping[str, Tensor]):
        super().__init__()
        for name, value in first.items():
            self.register_buffer(name, value)


def memory_of(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of an objective's state: the buffers change before the gradient is computed."""
    return {name: value.clone() for name, value in module.get_submodule("memory").named_buffers()}


def move_memory(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in state.items():
            module.get_submodule("memory").get_buffer(name).copy_(value)


class PairGates(nn.Module):
    """A gate for each pair of classes, `(rows, width)` in (0, 1), of the mean of their vectors."""

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.classes = nn.Embedding(classes, width)
        self.rise, self.fall = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        mean = (self.classes(one) + self.classes(other)) / 2
        gate: Tensor = self.fall(self.rise(mean.relu()).relu()).sigmoid()
        return gate


class ClassNetwork(nn.Module):
    """Rows in, a dict of logits and embeddings out; `needs` says which further heads it has."""

    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        body: nn.Module,
        settings: ClassifierSettings,
        needs: Set[str],
        classes: int,
        groups: int,
        prior: Tensor | None,
        centre: Tensor,
        spread: Tensor,
        memory: Mapping[str, Tensor],
    ):
        super().__init__()
        self.body, width = body, int(body.width)  # type: ignore[arg-type]
        cosine = settings.head == "cosine"
        self.head = ClassHead(width, classes, cosine, prior)
        if "auxiliary" in needs:
            self.auxiliary = ClassHead(width, classes, cosine)
        if "heads" in needs:
            self.heads = nn.ModuleList(ClassHead(width, classes, cosine, prior) for _ in range(groups))
        if "view" in needs:
            self.projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, PROJECTED))
        if "gate" in needs:
            self.gates = PairGates(classes, PROJECTED)
        self.register_buffer("centre", centre)
        self.register_buffer("spread", spread)
        self.memory = Memory(memory)

    def forward(self, x: Tensor, numbers: Mapping[str, FloatOrTensor], augmented: bool) -> dict[str, Tensor]:
        return self.heads_on(self.prepared(x, numbers, augmented), numbers)

    def prepared(self, x: Tensor, numbers: Mapping[str, FloatOrTensor], augmented: bool) -> Tensor:
        """Return rows as the body sees them."""
        if augmented:
            return changed_rows(x, self.centre, self.spread, numbers)
        return (x - self.centre) / self.spread

    def heads_on(self, x: Tensor, numbers: Mapping[str, FloatOrTensor]) -> dict[str, Tensor]:
        """Return what all heads find in prepared rows."""
        embedding = self.body(x, numbers["dropout"])
        found = {"logits": self.head(embedding), "features": embedding}
        if hasattr(self, "auxiliary"):
            found["auxiliary"] = self.auxiliary(embedding)
        if hasattr(self, "heads"):
            found["heads"] = torch.stack([head(embedding) for head in self.heads], dim=1)
        if hasattr(self, "projection"):
            found["embedding"] = self.projection(embedding)
        return found

    def teach(self) -> None:
        """Keep a copy of body and head that is not trained."""
        both = nn.ModuleDict({"body": deepcopy(self.body), "head": deepcopy(self.head)})
        self.teacher = both.requires_grad_(False)

    def taught(self, x: Tensor) -> Tensor:
        """Return the teacher's logits of prepared rows, without gradients and dropout."""
        with torch.no_grad():
            found: Tensor = self.teacher["head"](self.teacher["body"](x, 0.0))
        return found


def body_of(settings: ClassifierSettings, shape: Sequence[int], styled: bool = False) -> nn.Module:
    """Return what makes embeddings of rows of this shape, `(features,)` or `(channels, height, width)`.

    With `styled` the feature maps of images get noise in training.
    """
    if settings.network == "none":
        return Nothing(shape[0])
    if settings.network == "mlp":
        return HiddenLayers(shape[0], settings.width, settings.layers)
    if settings.network == "timm":
        return TimmBody(settings, shape[0])
    return Convolutions(shape[0], settings.width, settings.layers, styled)


def sees_images(settings: ClassifierSettings) -> bool:
    return settings.network in ("conv", "timm")


def network_inputs(batch: Mapping[str, Tensor], names: Sequence[str], images: bool) -> Tensor:
    """Return the inputs of rows, before they are centred: `(rows, features)`, or images, channels first."""
    if images:
        return channels_first(scaled(batch[names[0]]))
    return torch.cat([scaled(batch[name]).flatten(start_dim=1) for name in names], dim=1)


def scaled(values: Tensor) -> Tensor:
    """Return numbers `(rows, ...)` in float32; those of a byte lie between 0 and 1."""
    values = values if values.dim() > 1 else values[:, None]
    return values.float() / 255 if values.dtype == torch.uint8 else values.float()


def channels_first(images: Tensor) -> Tensor:
    if images.dim() == 3:
        return images[:, None]
    return images.movedim(-1, 1) if images.shape[-1] in CHANNELS else images
