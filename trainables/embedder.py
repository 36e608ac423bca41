"""The built-in embedder: a projection of frozen vectors, in which a query lies near what answers it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shoal.trainables.arrays import to_tensors
from shoal.trainables.class_networks import HiddenLayers, scaled
from shoal.trainables.embedder_settings import EmbedderSettings
from shoal.trainables.network import Network
from shoal.trainables.objectives.arithmetic import unit
from shoal.trainables.objectives.weighted import Weighted
from shoal.trainables.searched_numbers import FloatOrTensor, dropout

PROBE_HEAT = 0.1  # the losses that are reported have this temperature, whatever a member trains by


class Tower(nn.Module):
    """Vectors `(rows, features)` in, embeddings `(rows, width)` out; they are not of length 1 yet."""

    def __init__(self, features: int, settings: EmbedderSettings):
        super().__init__()
        self.body = HiddenLayers(features, settings.hidden, settings.layers)
        self.last = nn.Linear(settings.hidden if settings.layers else features, settings.width, bias=False)

    def forward(self, x: Tensor, rate: FloatOrTensor, drop: FloatOrTensor) -> Tensor:
        found: Tensor = self.last(self.body(dropout(x, drop, self.training), rate))
        return found


class Embedder(Network):
    """Pairs of vectors. The score is how high the positive of a query ranks among the held-out positives."""

    takes = frozenset({"columns"})
    by_row = True
    searched = frozenset({"drop", "objective"})
    settings: EmbedderSettings
    losses: Weighted
    sizes: Mapping[str, int]  # role -> numbers of its vector

    def own_numbers(self, chosen: Mapping[str, Any]) -> dict[str, float]:
        own = {"drop": float(chosen.get("drop", self.settings.drop))}
        return own | self.losses.numbers(chosen.get("objective", {}))

    def build(self) -> nn.Module:
        names = ("query", "positive") if self.settings.towers == "two" else ("query",)
        return nn.ModuleDict({name: Tower(self.sizes[name], self.settings) for name in names})

    def embedded(
        self, module: nn.Module, batch: Mapping[str, Tensor], numbers: Mapping[str, FloatOrTensor]
    ) -> dict[str, Tensor]:
        """Return the embeddings of queries and of positives, `(rows, width)` each."""
        towers: Any = module
        roles, found = self.settings.roles, {}
        for role, name in (("query", "embedding"), ("positive", "view")):
            tower = towers[role if role in towers else "query"]
            x = scaled(batch[roles[role]]).flatten(start_dim=1)
            found[name] = tower(x, numbers["dropout"], numbers["drop"])
        return found

    def loss(self, module: nn.Module, batch: Any, numbers: Mapping[str, FloatOrTensor]) -> Tensor:
        out = self.embedded(module, batch, numbers)
        positive = batch[self.settings.roles["positive"]].flatten(start_dim=1)
        # a row whose positive is the very same is no negative
        told = {"same": (positive[:, None] == positive).all(dim=-1)}
        for role in self.losses.fields:
            told[role] = scaled(batch[self.settings.roles[role]]).flatten(start_dim=1)
        widths = [*self.settings.slices, self.settings.width]
        parts = [{name: each[:, :width] for name, each in out.items()} for width in widths]
        found = [self.losses.loss(part, told, numbers, {})[0] for part in parts]
        return torch.stack(found).mean(dim=0)

    def cosines(self, module: nn.Module, rows: Any) -> Tensor:
        """Return the cosines of held-out queries with all positives of their group, `(rows, rows)`."""
        out = self.embedded(module, rows, self.sober)
        return unit(out["embedding"].float()) @ unit(out["view"].float()).T

    def row_losses(self, module: nn.Module, rows: Mapping[str, Any]) -> dict[str, Tensor]:
        return {group: probe_loss(self.cosines(module, each)) for group, each in rows.items()}

    def score(self, module: nn.Module, rows: Any) -> tuple[Tensor, dict[str, Tensor]]:
        cosines = {group: self.cosines(module, each) for group, each in rows.items()}
        losses = {group: probe_loss(each).mean().double() for group, each in cosines.items()}
        chosen = list(rows if self.targets is None else self.targets)
        found = [RANKED[self.settings.score](places_of(cosines[group])) for group in chosen]
        return torch.stack(found).mean(), losses

    def measure(self, split: str = "validation") -> dict[str, float]:
        """Return `recall_GROUP`, `mrr_GROUP` and `ndcg_GROUP` of each group."""
        found: dict[str, float] = {}
        self.module.eval()
        with torch.no_grad(), self.computing():
            for group, rows in to_tensors(self.held_out.get(split, {}), self.device).items():
                places = places_of(self.cosines(self.module, rows))
                found |= {f"{name}_{group}": of(places).item() for name, of in RANKED.items()}
        return found


def probe_loss(cosines: Tensor) -> Tensor:
    """Return the loss of each query among all candidates at a fixed temperature: `(rows,)`."""
    return -(cosines / PROBE_HEAT).log_softmax(dim=-1).diagonal(dim1=-2, dim2=-1)


def places_of(cosines: Tensor) -> Tensor:
    """Return the place of each query's positive, from 1 on, among all candidates: `(rows,)`.

    Candidates that are as near as the positive do not push it down: they may be its copies.
    """
    own = cosines.diagonal(dim1=-2, dim2=-1)
    return (cosines > own[..., None] + 1e-6).sum(dim=-1) + 1


def recall_at_1(places: Tensor) -> Tensor:
    return (places == 1).double().mean()


def reciprocal_at_10(places: Tensor) -> Tensor:
    return torch.where(places <= 10, 1 / places.double(), 0.0).mean()


def gain_at_10(places: Tensor) -> Tensor:
    """Return the normalised discounted gain, of one relevant candidate (Jarvelin and Kekalainen, 2002)."""
    return torch.where(places <= 10, 1 / (1 + places.double()).log2(), 0.0).mean()


RANKED = {"recall": recall_at_1, "mrr": reciprocal_at_10, "ndcg": gain_at_10}
