"""Networks as a user would write them: they say which rows they take, and have no constructor."""

from torch import nn

from shoal.trainables.network import Network
from shoal.trainables.searched_numbers import cross_entropy


class Bigrams(Network):
    """Guesses each token from the one before it."""

    takes = frozenset({"tokens"})
    by_row = True
    searched = frozenset({"scale"})
    vocabulary: int
    width: int = 8
    scale: float = 1.0

    def build(self):
        return nn.Sequential(nn.Embedding(self.vocabulary, self.width), nn.Linear(self.width, self.vocabulary))

    def loss(self, module, batch, numbers):
        tokens = batch.long()
        logits = numbers["scale"] * module(tokens[:, :-1])
        flat = cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), numbers["label_smoothing"])
        return flat.view(len(tokens), -1).mean(dim=1)


class Scalar(Bigrams):
    """Gives one loss for a whole batch, so no policy can ask for the loss of a row."""

    by_row = False

    def loss(self, module, batch, numbers):
        return super().loss(module, batch, numbers).mean()

    def score(self, module, rows):
        losses = {group: self.loss(module, each, self.sober).double() for group, each in rows.items()}
        return -sum(losses.values()) / len(losses), losses


class Tied(Bigrams):
    """Has one matrix under two names."""

    def build(self):
        made = nn.Sequential(nn.Embedding(self.vocabulary, self.width), nn.Linear(self.width, self.vocabulary))
        made[1].weight = made[0].weight
        return made


class Noisy(Bigrams):
    """Drops out by a layer of its own, which hears nothing of `numbers`."""

    def build(self):
        return nn.Sequential(*super().build(), nn.Dropout(0.5))
