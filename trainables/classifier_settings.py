"""The settings of the built-in classifier, readable without torch."""

from dataclasses import dataclass
from typing import Literal

from shoal.trainables.objectives.interface import require

CHANNELS = (1, 3, 4)  # an axis of so many numbers is that of an image's channels
KINDS_OF_NETWORK = ("mlp", "conv", "none", "timm")
TURNED = ("rotate", "zoom", "brightness", "saturation")  # numbers by which kornia changes images
# numbers that change rows in training; they may be searched
AUGMENTED = ("drop", "noise", "shift", "flip", *TURNED)

# beginnings of names of weights that the member's optimiser does not have
UNTRAINED = ("teacher.", "weigher.")
# and of all that objectives bring
OF_OBJECTIVES = (*UNTRAINED, "projection.", "auxiliary.", "heads.", "gates.", "memory.", "body.styles.")


@dataclass(frozen=True)
class ClassifierSettings:
    """What a classifier is made of, which columns it reads, and by what it is scored."""

    # none: a head alone, for frozen features; timm: the model of this package that `model` names
    network: Literal["mlp", "conv", "none", "timm"] = "mlp"
    model: str = ""  # timm: the model's name, such as resnet18
    weights: str = ""  # timm: a file of safetensors with the model's weights; by default they are drawn
    width: int = 128  # numbers of a hidden layer; of a convolution the channels of the first one
    layers: int = 2  # hidden layers, or convolutions
    head: Literal["linear", "cosine"] = "linear"  # cosine: class by the angle to a vector of its own
    bias: Literal["zero", "prior"] = "zero"  # prior: the first prediction is the share of each class
    classes: int = 0  # number of classes; by default as many as the label column names
    inputs: tuple[str, ...] = ()  # columns that the network sees; by default all that have no role
    label: str = "label"  # column of the label
    group: str = "group"  # column of the row's source, for objectives that look at it
    unlabelled: str = "unlabelled"  # column that is 1 where the label is not known
    row: str = "row"  # column of the row's number, for objectives that keep something of each row
    bag: str = "bag"  # column of the number of the row's bag
    shares: str = "shares"  # column of the shares of the classes in the row's bag
    # members are ranked by it; few_shot: classes told apart by some rows of each, also ones that never trained
    score: Literal["accuracy", "macro_f1", "worst_group", "auroc", "few_shot"] = "accuracy"
    ways: int = 5  # few_shot: classes of an episode
    shots: int = 1  # few_shot: rows of a class whose label is given
    drop: float = 0.0  # share of the inputs that are set to their mean in training
    noise: float = 0.0  # standard deviation of noise on inputs, which have the deviation 1 themselves
    shift: float = 0.0  # images move by at most this share of their sides
    flip: float = 0.0  # share of the images that are mirrored
    rotate: float = 0.0  # images turn by at most so many degrees
    zoom: float = 0.0  # images grow or shrink by at most this share
    brightness: float = 0.0  # images become lighter or darker by at most this share of the range
    saturation: float = 0.0  # colours become stronger or weaker by at most this share

    def __post_init__(self) -> None:
        require(
            self.network in KINDS_OF_NETWORK,
            f"network must be one of {', '.join(KINDS_OF_NETWORK)}",
            self.network,
        )
        require(self.ways >= 2, "ways must be at least 2", self.ways)
        for name in ("width", "layers", "shots"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1", getattr(self, name))
        require(self.classes == 0 or self.classes >= 2, "classes must be at least 2", self.classes)
        for name in ("drop", "flip", "shift", "zoom"):
            require(0 <= getattr(self, name) < 1, f"{name} must be at least 0 and below 1", getattr(self, name))
        for name in ("brightness", "saturation"):
            require(0 <= getattr(self, name) <= 1, f"{name} must be from 0 to 1", getattr(self, name))
        require(0 <= self.rotate <= 180, "rotate must be from 0 to 180 degrees", self.rotate)
        require(self.noise >= 0, "noise must be at least 0", self.noise)
        named = bool(self.model) == (self.network == "timm")
        require(named, "model must name a model of timm with network: timm, and only then", repr(self.model))
        require(not self.weights or self.network == "timm", "weights belong to network: timm", self.weights)

    @property
    def roles(self) -> dict[str, str]:
        """Return role -> column."""
        names = ("label", "group", "unlabelled", "row", "bag", "shares")
        return {name: getattr(self, name) for name in names}
