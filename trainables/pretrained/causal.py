"""A pretrained language model as a member: all of its weights, or an adapter on a base that members share."""

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from shoal.trainables.accumulate import FOUND
from shoal.trainables.arrays import map_nest, pieces
from shoal.trainables.forgetting import FORGET, extraction, likeliest_right
from shoal.trainables.heap import give_holes_back
from shoal.trainables.hiding import hides
from shoal.trainables.network import Network, StackedObjective
from shoal.trainables.objectives.inverted_hinge import hinge
from shoal.trainables.objectives.weighted import Weighted
from shoal.trainables.pretrained.begin import begin_with, redraw
from shoal.trainables.pretrained.both_ways import hidden_rows, look_both_ways
from shoal.trainables.pretrained.fila import begin_apart
from shoal.trainables.pretrained.folder import member_module, open_base
from shoal.trainables.pretrained.head import FrozenHead, plain_losses
from shoal.trainables.pretrained.low_rank import adapters, add_adapters, fit_rank, ranks_in_use
from shoal.trainables.pretrained.own_decoder import ReadingDecoder
from shoal.trainables.pretrained.rows import (
    Seen,
    asked,
    by_token,
    mean_counted,
    objective_numbers,
    rows_where,
    seen,
)
from shoal.trainables.pretrained.settings import Pretrained
from shoal.trainables.pretrained.writing import write_on
from shoal.trainables.recipes.densities import without_masks
from shoal.trainables.recipes.frozen import frozen_by
from shoal.trainables.recompute import recompute_parts
from shoal.trainables.scores import TokenIds
from shoal.trainables.searched_numbers import FloatOrTensor

BEGAN = (".began_down", ".began_up")  # names of what adapters began with, where it was more than nothing
ROWS_AT_A_TIME = 16  # held-out rows are judged so many at a time


class CausalModel(Network):
    """A causal language model of transformers, on rows of tokens or of instructions (see `rows.seen`).

    A row's loss is the mean over the tokens that count in it, in nats; or a share of the tokens is hidden, and
    found from both sides (`objectives.masked`). With an adapter the base is frozen,
    shared by the members of a process, and in no state; members of a stack then compute one pass of it over all
    their rows. Its `rank` may be searched, up to as many as are stored.
    """

    takes = frozenset({"tokens", "instruction"})
    by_row = True
    writes = True
    searched = frozenset({"rank"})
    priced = frozenset({"rank"})
    stacks_itself = True
    draws_weights = False
    pretrained: Pretrained
    losses: Weighted | None = None  # None: the next token's loss alone
    known_rows: Any = None  # training rows to `forget` and to `retain`, from which adapters may begin

    def own_numbers(self, chosen: Mapping[str, Any]) -> dict[str, float]:
        adapter = self.pretrained.adapter
        told = {} if self.losses is None else self.losses.numbers(chosen.get("objective", {}))
        if adapter is None:
            return told
        dropout = {"dropout": adapter.dropout} if adapter.dropout and "dropout" not in chosen else {}
        return {"rank": float(chosen.get("rank", adapter.rank)), **dropout, **told}

    def costs(self) -> dict[str, float]:
        adapter, found = self.pretrained.adapter, super().costs()
        ranked = adapter is not None and "rank" in self.hyperparameters
        return found | {"rank": self.numbers["rank"] / adapter.rank} if ranked and adapter else found

    @property
    def alone(self) -> bool:
        """Whether it never trains in a stack: only adapters do."""
        return super().alone or self.pretrained.adapter is None

    @property
    def compares(self) -> bool:
        """Whether rows are compared with the model that members begin with."""
        terms = () if self.losses is None else self.losses.terms.values()
        return any(getattr(term, "form", "") == "negative" for term in terms)

    @property
    def hides(self) -> bool:
        """Whether hidden tokens are found from both sides, and not the next one from those before it."""
        return hides(self.losses)

    def build(self) -> nn.Module:
        given = self.pretrained
        if given.adapter is None:
            if self.compares:
                self.template = open_base(given.path, self.recipe.precision, self.device)
            module = open_base(given.path, "float32", self.device, kept=False)
            redraw(module, given.fresh)
            frozen_by(module, given.freeze)
        else:
            # the module of a base lives as long as a member that shares its tensors
            self.template = open_base(given.path, self.recipe.precision, self.device)
            module = member_module(self.template)
            add_adapters(module, given.adapter)
            begin_with(module, given)
            if given.adapter.begin == "fila":
                if self.known_rows is None:
                    raise ValueError("adapter.begin: fila needs rows to forget: objective forget names them.")
                begin_apart(module, self.template, given.adapter, self.known_rows)
        if self.hides:
            look_both_ways(module)
        if given.gradient_checkpointing:
            recompute(module)
            give_holes_back(module)
        self.layers = dict(adapters(module))
        self.fit()
        return module

    def compute_again(self) -> None:
        recompute(self.module)
        give_holes_back(self.module)

    def adopt(self, hyperparameters: dict[str, Any]) -> None:
        super().adopt(hyperparameters)
        if hasattr(self, "optimiser"):
            self.fit(self.optimiser.state)

    def fit(self, slots: Any = None) -> None:
        """Leave as many ranks in use as the numbers say."""
        if self.pretrained.adapter is None:
            return
        rank, stored = int(self.numbers["rank"]), self.pretrained.adapter.rank
        if not 1 <= rank <= stored:
            raise ValueError(f"rank must be among the {stored} that the adapter stores, but got {rank}.")
        layers = list(self.layers.values())
        if ranks_in_use(layers[0]) == rank:  # all layers have as many
            return
        for place, layer in enumerate(layers):
            fit_rank(layer, rank, slots or {}, seed=1000 * (self.trained + 7919 * place))

    def held(self) -> dict[str, Tensor]:
        """Return what trains, its masks, and what it began with: the rest is the base's, and shared."""
        found = {
            name: weight.detach() for name, weight in self.module.named_parameters() if weight.requires_grad
        }
        others = dict(self.module.named_buffers())
        kept = others.keys() - without_masks(others).keys()
        kept |= {name for name in others if name.endswith(BEGAN)}
        return found | {name: others[name] for name in sorted(kept)}

    @contextmanager
    def together(self, tensors: Mapping[str, Tensor]) -> Iterator[StackedObjective]:
        """Compute with the adapters of a stack's members; the backward pass belongs in this context too."""
        members = len(next(iter(tensors.values())))
        layers = self.layers

        def objective(batch: Any, numbers: Mapping[str, FloatOrTensor]) -> tuple[Tensor, Tensor]:
            return self.stacked_objective(members, batch, numbers)

        try:
            for name, layer in layers.items():
                layer.seat((tensors[f"{name}.down"], tensors[f"{name}.up"]))
            yield objective
        finally:
            for layer in layers.values():
                layer.seat(None)

    def stacked_objective(
        self, members: int, batch: Any, numbers: Mapping[str, FloatOrTensor]
    ) -> tuple[Tensor, Tensor]:
        """Return what is minimised, `(members,)`, and the losses of a stacked batch, `(members, rows)`."""
        rows = map_nest(lambda leaf: leaf.flatten(0, 1), batch["rows"] if self.sampled else batch)
        with self.computing():
            losses = self.loss(self.module, rows, numbers).view(members, -1)
        if not self.sampled:
            return losses.mean(dim=1), losses
        found = batch.get(FOUND)
        weights = vmap(self.weigh)(losses.detach(), batch["weights"]) if found is None else found
        return (weights * losses).sum(dim=1), losses

    def loss(self, module: nn.Module, batch: Any, numbers: Mapping[str, FloatOrTensor]) -> Tensor:
        rows = self.read(module, batch, numbers)
        for layer in self.layers.values():
            layer.drop(numbers["dropout"])
        if self.losses is not None and isinstance(batch, Mapping) and FORGET in batch:
            return self.forgetting_loss(module, rows, batch[FORGET], numbers)
        nats = mean_counted(self.token_losses(module, rows, numbers), rows.counted)
        if self.losses is None or not self.hides:
            return nats
        return self.losses.loss({"hidden_nats": nats}, {}, objective_numbers(numbers, len(nats)), {})[0]

    def read(self, module: nn.Module, batch: Any, numbers: Mapping[str, FloatOrTensor]) -> Seen:
        """Return rows as the model sees them, and what it is to find at each place."""
        if not self.hides:
            return seen(batch)
        table: Any = self.module.get_input_embeddings()  # type: ignore[operator]
        return hidden_rows(batch, table.num_embeddings, module.training, numbers)

    def forgetting_loss(
        self, module: nn.Module, rows: Seen, forget: Tensor, numbers: Mapping[str, FloatOrTensor]
    ) -> Tensor:
        """Return the loss of each row, `(rows,)`, where `forget` is 1 for those that are to be forgotten."""
        assert self.losses is not None
        gone = forget > 0
        each = self.token_losses(module, rows, numbers, gone)
        mean = mean_counted(each, rows.counted)
        out = {"nats": mean, "hinge": mean}
        if self.compares:
            with torch.no_grad():
                known = self.token_losses(self.template, rows_where(rows, gone)).sum(dim=1)
            out |= {
                "total": each.sum(dim=1),
                "reference": mean.new_zeros(mean.shape).masked_scatter(gone, known),
            }
        return self.losses.loss(out, {FORGET: forget}, objective_numbers(numbers, len(forget)), {})[0]

    def token_losses(
        self,
        module: nn.Module,
        rows: Seen,
        numbers: Mapping[str, FloatOrTensor] | None = None,
        gone: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of the token to find at each place that counts, else 0: `(rows, length)`.

        Rows for which `gone`, `(rows,)`, is True have inverted hinges or, if they are compared, plain losses.
        """
        counts, told = rows.counted > 0, numbers or {}
        targets = rows.targets[counts]
        smoothing, z_loss = (by_token(told.get(name, 0.0), counts) for name in ("label_smoothing", "z_loss"))
        there = None if gone is None else gone[:, None].expand(counts.shape)[counts]  # (tokens,)
        if there is not None:
            smoothing, z_loss = (
                None if each is None else each.masked_fill(there, 0.0) for each in (smoothing, z_loss)
            )
        if self.span is not None or not getattr(module, "plain_head", False):
            found = module(**asked(rows)).logits[counts]
            losses, head = plain_losses(found, targets, smoothing, z_loss), nn.Identity()
        else:
            found = module.base_model(**asked(rows)).last_hidden_state[counts]  # type: ignore[operator]
            head = module.get_output_embeddings()  # type: ignore[operator]
            losses = self.behind_head(head, found, targets, smoothing, z_loss)
        if there is not None and not self.compares:
            losses = losses.masked_scatter(there, hinge(head(found[there]), targets[there]))
        return losses.new_zeros(counts.shape).masked_scatter(counts, losses)

    def behind_head(
        self, head: Any, hidden: Tensor, targets: Tensor, smoothing: Tensor | None, z_loss: Tensor | None
    ) -> Tensor:
        """Return the loss of each token in nats, `(tokens,)`, of states `(tokens, width)` before the head."""
        if head.weight.requires_grad and torch.is_grad_enabled():
            return plain_losses(head(hidden), targets, smoothing, z_loss)
        weight = head.weight
        if torch.is_autocast_enabled(self.device.type):
            weight = weight.to(torch.get_autocast_dtype(self.device.type))
        losses: Tensor = FrozenHead.apply(
            hidden.to(weight.dtype), weight, head.bias, targets, smoothing, z_loss
        )
        return losses

    def measure(self, split: str = "validation") -> dict[str, float]:
        return super().measure(split) | extraction(self, self.extracted)

    def extracted(self, module: nn.Module, batch: Any) -> Tensor:
        """Return the share of each row's tokens that count which the model finds likeliest, `(rows,)`."""
        rows = seen(batch)
        for layer in self.layers.values():
            layer.drop(0.0)
        return likeliest_right(module(**asked(rows)).logits, rows.targets, rows.counted)

    def parts(self, module: nn.Module, batch: Any) -> Tensor:
        """Return the loss of each token that counts, in nats, else NaN: `(rows, length)`."""
        rows = self.read(module, batch, self.sober)
        return self.token_losses(module, rows).float().masked_fill(rows.counted == 0, float("nan"))

    def row_losses(self, module: nn.Module, rows: Mapping[str, Any]) -> dict[str, Tensor]:
        return {
            group: torch.cat([self.loss(module, part, self.sober) for part in pieces(each, ROWS_AT_A_TIME)])
            for group, each in rows.items()
        }

    def write(
        self, module: nn.Module, prompts: Sequence[TokenIds], most: int, ends: Set[int]
    ) -> list[list[int]]:
        return write_on(module, prompts, most, ends, self.device)


def recompute(module: Any) -> None:
    """Let a model of transformers compute its layers again in the backward pass, in place of keeping them."""
    if isinstance(module, ReadingDecoder):
        recompute_parts(module)
        return
    # the second is the first's name in older versions
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    enable = next(getattr(module, name) for name in names if hasattr(module, name))
    enable({"use_reentrant": False})
