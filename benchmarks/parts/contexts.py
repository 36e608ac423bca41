"""Small byte models that learn smoothly: the last bytes' embeddings and one hidden layer (Bengio et al., 2003).

At this size a decoder's perplexity after a few hundred steps differs between two equal runs with other rows by
more than mixtures make (0.1 to 0.6, beside 0.05 here), because attention begins to learn at a different step
each time. These models also reach a lower loss in the same time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.parts.texts import HeldOut, Memory
from shoal.policies.mixers.mixer import Groups
from shoal.policies.mixers.visits import BoundedMixing
from shoal.policies.mixing import normalise
from shoal.search.config.mixing import PROBED
from shoal.search.corpus.batches import MixedBatches
from shoal.search.members.mixed import Mixed, train_visits
from shoal.trainables.language import LanguageModel
from shoal.trainables.reference import Reference
from shoal.trainables.searched_numbers import FloatOrTensor
from shoal.trainables.settings import DecoderShape, Recipe
from shoal.trainables.stack import Stack

BYTES = 128  # what is not ASCII counts as one byte
CONTEXT, WIDTH, HIDDEN = 8, 12, 96


class ContextNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BYTES, WIDTH)
        self.rise, self.fall = nn.Linear(CONTEXT * WIDTH, HIDDEN), nn.Linear(HIDDEN, BYTES)
        nn.init.normal_(self.embedding.weight, std=0.3)
        nn.init.normal_(self.fall.weight, std=0.02)

    def forward(self, tokens: Tensor, dropout: FloatOrTensor = 0.0) -> Tensor:
        """Return the logits of the byte after each, `(rows, length, BYTES)`, of the last CONTEXT bytes."""
        embedded = functional.pad(self.embedding(tokens), (0, 0, CONTEXT - 1, 0))
        windows = embedded.unfold(1, CONTEXT, 1).flatten(2)
        logits: Tensor = self.fall(self.rise(windows).relu())
        return logits


class ContextModel(Mixed, LanguageModel):
    def build(self) -> nn.Module:
        return ContextNetwork()


@dataclass(frozen=True)
class Job:
    """One run: a mixing and the seed of its first weights, its order of rows and its policy."""

    mixing: BoundedMixing
    seed: int
    reference: Reference | None = None  # DoReMi's


def ascii_only(rows: NDArray[np.uint16]) -> NDArray[np.uint16]:
    return np.minimum(rows, BYTES - 1)


def members(
    jobs: list[Job],
    train: Mapping[str, NDArray[np.uint16]],
    held_out: HeldOut,
    recipe: Recipe,
    batch: int,
    steps: int,
) -> list[ContextModel]:
    groups = Groups(tuple(train), tuple(map(len, train.values())), batch, steps)
    shape, even = DecoderShape(BYTES, 64, layers=1, heads=1, width=2), normalise([1.0] * len(train))
    rows = {name: ascii_only(values) for name, values in train.items()}
    held = {split: {name: ascii_only(r) for name, r in of.items()} for split, of in held_out.items()}
    held[PROBED] = held["validation"]
    found = []
    for job in jobs:
        streams = {name: Memory(name, values, job.seed) for name, values in rows.items()}
        batches = MixedBatches(streams, even, batch)
        model = ContextModel(
            recipe,
            {},
            batches,
            held,
            job.seed,
            mixing=job.mixing,
            groups=groups,
            reference=job.reference,
            shape=shape,
        )
        found.append(model)
    return found


def train_together(models: list[ContextModel], steps: int) -> None:
    """Train all of them as one stack, each through its own visits."""
    stack = Stack(models)
    train_visits(models, stack.train, steps)


def losses(model: ContextModel, split: str) -> NDArray[np.float64]:
    """Return the mean loss of each group, in nats per byte."""
    return np.array([each.mean() for each in model.sequence_losses(split).values()])
