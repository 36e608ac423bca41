"""Learners that learn within a sequence: each is a task that nobody has seen (Kirsch et al., 2022).

A task mixes the numbers of a row by a random matrix and gives the labels other names. A network that has many
of them to learn cannot know them by heart: it has to find each task's rule from the examples before.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shoal.trainables.class_networks import scaled
from shoal.trainables.decoder import Decoder, initialise
from shoal.trainables.network import Network
from shoal.trainables.searched_numbers import FloatOrTensor, cross_entropy
from shoal.trainables.settings import DecoderShape


class InContext(Network):
    """Rows of a column `x` and a `label`, as examples of tasks. The score is what the last examples gain.

    That is the accuracy at the last tenth of the places less the one at the first, on held-out rows and new
    tasks. A batch's rows are the examples of all its sequences, in an order of its own for each.
    """

    takes = frozenset({"columns"})
    by_row = True
    own_step = True
    searched = frozenset({"tasks", "biased"})
    features: int  # numbers of `x`
    classes: int
    x: str = "x"  # the column
    label: str = "label"
    length: int = 32  # examples of a sequence
    sequences: int = 16  # sequences of a batch
    width: int = 64
    layers: int = 2
    heads: int = 4
    tasks: float = 0.0  # tasks that there are; 0: no two sequences have the same
    biased: float = 0.5  # share of the sequences whose labels keep their names, which shortens the plateau

    def build(self) -> nn.Module:
        shape = DecoderShape(
            self.classes + 1, self.length, layers=self.layers, heads=self.heads, width=self.width, expansion=2.0
        )
        decoder = Decoder(shape)
        initialise(decoder, torch.Generator().manual_seed(int(torch.randint(2**31, ()).item())))
        parts = {"decoder": decoder, "rise": nn.Linear(self.features, self.width)}
        return nn.ModuleDict({**parts, "head": nn.Linear(self.width, self.classes)})

    def predicted(self, module: Any, x: Tensor, label: Tensor, rate: FloatOrTensor = 0.0) -> Tensor:
        """Return logits of each example, of sequences `(sequences, length, features)` and labels before it."""
        decoder, length = module["decoder"], x.shape[1]
        # beside an example stands the label of the one before it; the first has none
        before = torch.cat([torch.full_like(label[:, :1], self.classes), label[:, :-1]], dim=1)
        states = module["rise"](x) + decoder.embedding(before)
        states = decoder.through(states, decoder.cosine[:length], decoder.sine[:length], rate)
        found: Tensor = module["head"](decoder.norm(states))
        return found

    def loss(self, module: nn.Module, batch: Any, numbers: Mapping[str, FloatOrTensor]) -> Tensor:
        """Return a loss for each row of the batch: all are the mean over the sequences' examples."""
        x, label = scaled(batch[self.x]).flatten(start_dim=1), batch[self.label].long()
        drawn = torch.randint(2**31, (2 * self.sequences,)).tolist()
        most = int(numbers["tasks"])
        seeds = [seed % most if most else seed for seed in drawn[: self.sequences]]
        biased = torch.rand(self.sequences) < float(numbers["biased"])
        made = [
            self.task(x, label, seed, order, bool(plain))
            for seed, order, plain in zip(seeds, drawn[self.sequences :], biased, strict=True)
        ]
        examples, names = (torch.stack(each) for each in zip(*made, strict=True))
        logits = self.predicted(module, examples, names, numbers["dropout"])
        return cross_entropy(logits.flatten(0, 1), names.flatten()).mean().expand(len(x))

    def task(self, x: Tensor, label: Tensor, seed: int, order: int, plain: bool) -> tuple[Tensor, Tensor]:
        """Return the examples `(length, features)` and labels `(length,)` of a task, from rows."""
        draws = torch.Generator().manual_seed(seed)
        # a deviation of 1 / sqrt(features) keeps the size of rows
        matrix = torch.randn(self.features, self.features, generator=draws).to(x) / self.features**0.5
        names = torch.randperm(self.classes, generator=draws).to(label.device)
        names = torch.arange(self.classes, device=label.device) if plain else names
        rows = torch.randint(len(x), (self.length,), generator=torch.Generator().manual_seed(order))
        rows = rows.to(label.device)
        return x[rows] @ matrix, names[label[rows]]

    def hits(self, module: nn.Module, rows: Any) -> Tensor:
        """Return which examples of new tasks are right: `(sequences, length)`."""
        x, label = scaled(rows[self.x]).flatten(start_dim=1), rows[self.label].long()
        # no task of training has such a seed
        made = [self.task(x, label, 2**40 + place, 2**41 + place, plain=False) for place in range(64)]
        examples, names = (torch.stack(each) for each in zip(*made, strict=True))
        return (self.predicted(module, examples, names).argmax(dim=-1) == names).double()

    def score(self, module: nn.Module, rows: Any) -> tuple[Tensor, dict[str, Tensor]]:
        part = max(self.length // 10, 1)
        hits = {group: self.hits(module, each) for group, each in rows.items()}
        chosen = list(rows if self.targets is None else self.targets)
        gains = [hits[group][:, -part:].mean() - hits[group][:, :part].mean() for group in chosen]
        return torch.stack(gains).mean(), {group: 1 - each.mean() for group, each in hits.items()}
