"""Plain settings of the trainables, readable without torch."""

import math
from dataclasses import asdict, dataclass
from typing import Annotated

from shoal.trainables.recipes.densities import DENSITY_RULES

GATES = ("linear", "tanh", "sigmoid")
TEMPERATURES = "temperatures"  # the gates' temperatures have this name among a decoder's weights


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of the network; `width` is divided evenly among the heads."""

    vocabulary: int
    sequence_length: int
    layers: int = 4  # blocks of attention and feed-forward
    heads: int = 4  # attention heads of a block
    width: int = 128  # numbers of a token between blocks
    expansion: float = 4.0  # width of the feed-forward layer, as a multiple of `width`
    experts: int = 1  # feed-forward layers of a block, mixed by a gate; all are computed, so none saves time
    gate: str = "linear"  # the gate is linear, or goes through tanh or sigmoid
    active_experts: int = 0  # judged, a token keeps its largest shares, so many; 0: all

    def __post_init__(self) -> None:
        if self.layers < 0:
            raise ValueError(f"layers must be at least 0, but got {self.layers}.")
        for name in ("heads", "width", "expansion"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, but got {getattr(self, name)}.")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"width / heads must be a whole even number (rotary positions turn pairs), "
                f"but got width={self.width}, heads={self.heads}."
            )
        if self.experts < 1:
            raise ValueError(f"experts must be at least 1, but got {self.experts}.")
        if self.gate not in GATES:
            raise ValueError(f"gate must be one of {', '.join(GATES)}, but got {self.gate!r}.")
        if not 0 <= self.active_experts <= self.experts:
            raise ValueError(
                f"active_experts must be from 0 to experts ({self.experts}), but got {self.active_experts}."
            )


@dataclass(frozen=True)
class Cooling:
    """How a gate between experts cools over a run, from dense to sparse; each number may be searched."""

    gate_start: float = 2.0  # the temperature of the first step: the higher, the more evenly experts are mixed
    gate_end: float = 0.3  # that of the last step, and of judging
    gate_balance: float = 0.01  # weight of the loss that is 0 where a row uses all experts alike

    def __post_init__(self) -> None:
        for name in ("gate_start", "gate_end"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, but got {getattr(self, name)}.")
        if not self.gate_balance >= 0:
            raise ValueError(f"gate_balance must be at least 0, but got {self.gate_balance}.")


OPTIMISER_NAMES = ("adamw", "sgd")
PRECISIONS = ("float32", "bfloat16")
KNOWN_BITS = (4, 6, 8, 16, 32)
KNOWN_WORDS = {
    "optimiser": OPTIMISER_NAMES,
    "precision": PRECISIONS,
    "densities": DENSITY_RULES,
    "elements": ("float", "int"),
    "rounding": ("nearest", "stochastic"),
}
PRICED = frozenset(
    {"bits", "density", "prior"}
)  # these trade loss for cost: nobody searches them without a price


@dataclass(frozen=True)
class Recipe:
    """How a member trains. Every number here can be a searched hyperparameter; a subclass may add more."""

    steps: int = 200  # optimiser steps of each member
    warmup: int = 20  # steps over which the learning rate rises to its full value
    final_rate: float = 0.1  # share of the learning rate that the cosine ends at, one step after the last one
    learning_rate: float = 1e-3  # the largest learning rate, at the end of the warm-up
    weight_decay: float = 0.1  # only weights with at least two dimensions decay
    beta1: float = 0.9  # decay of AdamW's mean of gradients
    beta2: float = 0.95  # decay of AdamW's mean of squared gradients
    dropout: float = 0.0  # share of activations that are dropped in training
    clip: Annotated[float, "may be infinite"] = 1.0  # largest norm of all gradients together
    optimiser: str = "adamw"  # adamw or sgd
    momentum: float = 0.9  # only sgd uses it
    label_smoothing: float = 0.0  # share of the target that is spread over all classes
    z_loss: float = 0.0  # weight of the squared log-partition (Chowdhery et al., 2022; theirs is 1e-4)
    precision: str = "float32"  # the forward pass computes in it; weights, slots, norms and losses stay float32
    accumulate: int = 1  # a batch is computed in so many parts; its gradient stays that of the whole
    gradient_checkpointing: bool = False  # layers are computed again in the backward pass, to save memory
    prior: float = 0.0  # strength of a generalised Gaussian prior on matrices, times the learning rate
    prior_shape: float = 0.0  # its shape: 1 is a Laplace, 2 normal; 0: the one that each matrix has at the time
    prior_start: float = 2.0  # the shape that matrices are first drawn with, each with its own deviation
    density: float = 1.0  # share of the weights of linear layers and convolutions that are there at all
    densities: str = "erk"  # how layers share it: erk, erk_plus (the last one stays whole) or uniform
    mask_scale: bool = True  # drawn weights are scaled up where there are fewer, so that sums keep their size
    bits: int = (
        32  # linear layers compute with so many, emulated: 4, 6 or 8 in blocks (MXFP), 16, or 32 for all
    )
    elements: str = "float"  # the numbers in blocks: float (MXFP4, MXFP6, MXFP8) or int (MXINT8)
    rounding: str = "nearest"  # with few bits the backward pass rounds to the nearest, or is stochastic

    def __post_init__(self) -> None:
        for name in ("steps", "learning_rate", "clip"):
            self._must(name, getattr(self, name) > 0, "above 0")
        for name in ("warmup", "weight_decay", "z_loss", "prior", "prior_shape"):
            self._must(name, getattr(self, name) >= 0, "at least 0")
        for name in ("beta1", "beta2", "dropout", "momentum", "label_smoothing"):
            self._must(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._must("final_rate", 0 <= self.final_rate <= 1, "at least 0 and at most 1")
        self._must("prior_start", self.prior_start >= 0.1, "at least 0.1")
        self._must("accumulate", self.accumulate >= 1, "at least 1")
        self._must("density", 0 < self.density <= 1, "above 0 and at most 1")
        self._must("bits", self.bits in KNOWN_BITS, f"one of {', '.join(map(str, KNOWN_BITS))}")
        for name, known in KNOWN_WORDS.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}.")

    def _must(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {what}, but got {getattr(self, name)}.")


def numbers(recipe: Recipe) -> dict[str, float]:
    """Return a recipe's numbers by name; any of them can be a searched hyperparameter."""
    # a flag is an int to Python
    return {name: float(value) for name, value in asdict(recipe).items() if type(value) in (int, float)}


def rate_at(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step counted from 0: linear warm-up, then a half cosine down.

    The cosine reaches `final_rate` where a step after the last one would be, so no step is trained at a rate
    of 0.
    """
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    done = min((step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1), 1.0)
    share = recipe.final_rate + (1 - recipe.final_rate) * 0.5 * (1 + math.cos(math.pi * done))
    return recipe.learning_rate * share
