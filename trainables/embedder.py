"""The built-in embedder: vectors of vectors or of texts, in which a query lies near what answers it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shoal.trainables.arrays import pieces, to_tensors
from shoal.trainables.class_networks import HiddenLayers, Memory, memory_of, move_memory, scaled
from shoal.trainables.embedder_settings import EmbedderSettings
from shoal.trainables.judged import JUDGED_TOGETHER
from shoal.trainables.network import Network
from shoal.trainables.objectives.arithmetic import unit
from shoal.trainables.objectives.interface import Sizes
from shoal.trainables.objectives.weighted import Weighted
from shoal.trainables.searched_numbers import FloatOrTensor, dropout
from shoal.trainables.span import uncovered
from shoal.trainables.text_tower import ExportedTower, FolderTower, TextTower

COUNTED = ("row", "document")  # roles whose columns are numbers of rows or documents
SLICED = ("embedding", "view", "negatives")
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


class Towers(nn.ModuleDict):
    """The towers by role, and the objective's memory; one call embeds all columns of a batch.

    A member over several processes must call what it trains once a step.
    """

    def forward(self, columns: Mapping[str, Tensor], numbers: Mapping[str, FloatOrTensor]) -> dict[str, Tensor]:
        """Return the embeddings of columns by role: `(rows, width)`, or `(rows, most, width)` of negatives."""
        found = {}
        for role, x in columns.items():
            tower = self["positive" if role != "query" and "positive" in self else "query"]
            # several texts of each row, (rows, most, length), are read one beside another
            several = x.dim() == 3 and not x.is_floating_point()
            flat = tower(x.flatten(0, 1) if several else x, numbers["dropout"], numbers["drop"])
            found[role] = flat.view(*x.shape[:2], -1) if several else flat
        return found


class Embedder(Network):
    """Pairs of vectors or of texts. The score is how high a query's positive ranks among the held-out ones."""

    takes = frozenset({"columns"})
    by_row = True
    searched = frozenset({"drop", "objective"})
    of_objectives = ("memory.",)
    settings: EmbedderSettings
    losses: Weighted
    sizes: Mapping[str, int]  # role -> numbers of its vector, or tokens of its text
    vocabulary: int = 0  # tokens that texts are made of; 0: rows hold vectors
    exported: Any = None  # shape and weights of the decoder that `settings.encoder` names
    rows: int = 0  # a batch has so many
    documents: Any = None  # (documents, width), of length 1: frozen vectors among which queries search

    def own_numbers(self, chosen: Mapping[str, Any]) -> dict[str, float]:
        own = {"drop": float(chosen.get("drop", self.settings.drop))}
        return own | self.losses.numbers(chosen.get("objective", {}))

    def build(self) -> nn.Module:
        sizes = Sizes(rows=self.rows)
        if problem := self.losses.misfit(sizes):
            raise ValueError(f"objective: {problem}.")
        names = ("query", "positive") if self.settings.towers == "two" else ("query",)
        parts: dict[str, nn.Module] = {name: self.tower(self.sizes[name]) for name in names}
        self.index = None if self.documents is None else torch.from_numpy(self.documents).to(self.device)
        self.kinds: Any = None if self.index is None else kinds_of(self.index)
        return Towers({**parts, "memory": Memory(self.losses.start(sizes))})

    def tower(self, size: int) -> nn.Module:
        """Return what makes embeddings of vectors, or of texts, of this size."""
        settings = self.settings
        if not self.vocabulary:
            return Tower(size, settings)
        if self.exported is not None:
            return ExportedTower(settings, size, *self.exported)
        return FolderTower(settings.encoder) if settings.encoder else TextTower(settings, self.vocabulary, size)

    @property
    def alone(self) -> bool:
        # an encoder of transformers is not made for vmap
        folder = bool(self.settings.encoder) and self.exported is None
        return super().alone or self.losses.alone or folder

    def embedded(
        self, module: nn.Module, batch: Mapping[str, Tensor], numbers: Mapping[str, FloatOrTensor]
    ) -> dict[str, Tensor]:
        """Return the embeddings of queries and of positives, `(rows, width)` each, and of hard negatives."""
        names = {"query": "embedding"} | ({} if self.index is not None else {"positive": "view"})
        if "negatives" in self.losses.needs and module.training:
            names["negatives"] = "negatives"
        vectors = module({role: self.column(batch, role) for role in names}, numbers)
        found = {name: vectors[role] for role, name in names.items()}
        if self.index is not None:
            found["view"] = self.index[batch[self.settings.document].long()]
        if "negatives" in found:
            # the middle one of three uniform draws: Beta(2, 2)
            draws = torch.rand_like(found["negatives"][..., :3].float())
            found["draws"] = draws.sort(dim=-1).values[..., 1]
        return found

    def column(self, batch: Mapping[str, Tensor], role: str) -> Tensor:
        """Return a column as the towers take it: token ids, or numbers."""
        x = batch[self.settings.roles[role]]
        if self.vocabulary:
            return x.long()
        return scaled(x) if role == "negatives" else scaled(x).flatten(start_dim=1)

    @property
    def looked_at(self) -> set[str]:
        """Return the columns of a batch that say more of rows than their embeddings do."""
        roles = self.losses.fields | {"positive", "document", "negatives" if self.vocabulary else "there"}
        return {self.settings.roles[role] for role in roles & self.settings.roles.keys()}

    def told(self, batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the columns that objectives look at, by role, and which rows have the same positive."""
        roles = self.settings.roles
        if self.index is None:
            positive = batch[roles["positive"]].flatten(start_dim=1)
            found = {"same": (positive[:, None] == positive).all(dim=-1)}
        else:
            document = batch[roles["document"]]
            found = {"same": document[:, None] == document}
        if "negatives" in out:
            found["there"] = self.known_negatives(batch, out["draws"])
        for role in self.losses.fields & roles.keys():
            values = batch[roles[role]]
            found[role] = values.long() if role in COUNTED else scaled(values).flatten(start_dim=1)
        return found

    def known_negatives(self, batch: Mapping[str, Tensor], alike: Tensor) -> Tensor:
        """Return 1 for each hard negative that there is, else 0: `(rows, most)`; an empty text is none."""
        roles = self.settings.roles
        if self.vocabulary:
            return (batch[roles["negatives"]] >= 0).any(dim=-1).to(alike.dtype)
        known = batch.get(roles["there"])
        return torch.ones_like(alike) if known is None else known.float()

    def loss(self, module: nn.Module, batch: Any, numbers: Mapping[str, FloatOrTensor]) -> Tensor:
        out, network = self.embedded(module, batch, numbers), uncovered(module)
        if self.span is not None:  # the negatives of a query are the rows of all processes
            out = {name: self.span.gathered(each) for name, each in out.items()}
            batch = {name: self.span.whole(each) for name, each in batch.items() if name in self.looked_at}
        told = self.told(batch, out)
        state = memory_of(network) if self.losses.stateful else {}
        found = []
        for width in (*self.settings.slices, self.settings.width):  # the state moves by the full width
            part = {name: each[..., :width] if name in SLICED else each for name, each in out.items()}
            if "found" in self.losses.needs and self.index is not None:
                part["found"] = unit(part["embedding"]) @ unit(self.index[:, :width]).T
            losses, signals = self.losses.loss(part, told, numbers, state)
            found.append(losses)
        if state and module.training:
            move_memory(network, self.losses.after(state, signals, numbers))
        losses = torch.stack(found).mean(dim=0)
        return losses if self.span is None else self.span.part(losses)

    def cosines(self, module: nn.Module, rows: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return the cosines of held-out queries with all candidates, each one's right one, and its copies.

        Candidates are the positives of their group, or all documents: `(rows, candidates)` and `(rows,)`.
        Copies are candidates that were equal before any network saw them, `(rows, candidates)`.
        """
        several = [self.embedded(module, part, self.sober) for part in pieces(rows, JUDGED_TOGETHER)]
        out = {name: torch.cat([each[name] for each in several]) for name in several[0]}
        query = unit(out["embedding"].float())
        if self.index is None:
            kinds = kinds_of(rows[self.settings.positive])
            return (
                query @ unit(out["view"].float()).T,
                torch.arange(len(query), device=query.device),
                copies_of(kinds),
            )
        right = rows[self.settings.document].long()
        return query @ self.index.T, right, copies_of(self.kinds, right)

    def row_losses(self, module: nn.Module, rows: Mapping[str, Any]) -> dict[str, Tensor]:
        return {group: probe_loss(*self.cosines(module, each)[:2]) for group, each in rows.items()}

    def score(self, module: nn.Module, rows: Any) -> tuple[Tensor, dict[str, Tensor]]:
        cosines = {group: self.cosines(module, each) for group, each in rows.items()}
        losses = {group: probe_loss(*each[:2]).mean().double() for group, each in cosines.items()}
        chosen = list(rows if self.targets is None else self.targets)
        found = [RANKED[self.settings.score](places_of(*cosines[group])) for group in chosen]
        return torch.stack(found).mean(), losses

    def measure(self, split: str = "validation") -> dict[str, float]:
        """Return `recall_GROUP`, `mrr_GROUP` and `ndcg_GROUP` of each group."""
        found: dict[str, float] = {}
        self.module.eval()
        with torch.no_grad(), self.computing():
            for group, rows in to_tensors(self.held_out.get(split, {}), self.device).items():
                places = places_of(*self.cosines(self.module, rows))
                found |= {f"{name}_{group}": of(places).item() for name, of in RANKED.items()}
        return found


def probe_loss(cosines: Tensor, right: Tensor) -> Tensor:
    """Return the loss of each query among all candidates at a fixed temperature: `(rows,)`."""
    return -(cosines / PROBE_HEAT).log_softmax(dim=-1).gather(-1, right[:, None])[:, 0]


def kinds_of(values: Tensor) -> Tensor:
    """Return a number for each row, the same one for rows that are equal: `(rows,)`."""
    found: Tensor = values.flatten(start_dim=1).unique(dim=0, return_inverse=True)[1]
    return found


def copies_of(kinds: Tensor, right: Tensor | None = None) -> Tensor:
    """Return which candidates are of the kind of each query's right one, by default the query's own place."""
    return (kinds if right is None else kinds[right])[:, None] == kinds


def places_of(cosines: Tensor, right: Tensor, copies: Tensor) -> Tensor:
    """Return the place of each query's right candidate, from 1 on, among all: `(rows,)`.

    Its copies do not push it down. Others that are as near do, or vectors that are all alike would be perfect.
    """
    own = cosines.gather(-1, right[:, None])
    return (~(cosines < own - 1e-6) & ~copies).sum(dim=-1) + 1


def recall_at_1(places: Tensor) -> Tensor:
    return (places == 1).double().mean()


def reciprocal_at_10(places: Tensor) -> Tensor:
    return torch.where(places <= 10, 1 / places.double(), 0.0).mean()


def gain_at_10(places: Tensor) -> Tensor:
    """Return the normalised discounted gain, of one relevant candidate (Jarvelin and Kekalainen, 2002)."""
    return torch.where(places <= 10, 1 / (1 + places.double()).log2(), 0.0).mean()


RANKED = {"recall": recall_at_1, "mrr": reciprocal_at_10, "ndcg": gain_at_10}
