"""A torch module in training: all that members have in common, whatever they learn."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from shoal.trainables.accumulate import FOUND, in_parts
from shoal.trainables.arrays import (
    rows_in,
    to_arrays,
    to_tensors,
)
from shoal.trainables.constants import constants_of, set_constants
from shoal.trainables.copied import Copied
from shoal.trainables.judged import SOBER
from shoal.trainables.member import Batches
from shoal.trainables.prior import draw_anew, matrices_of, prior_cost, shrink_to_zero
from shoal.trainables.randomness import reseed, restored
from shoal.trainables.recipes.applied import AppliedRecipe, apply_recipe
from shoal.trainables.recipes.frozen import frozen_by
from shoal.trainables.recompute import recompute_parts
from shoal.trainables.searched_numbers import FloatOrTensor
from shoal.trainables.settings import Recipe, numbers, rate_at
from shoal.trainables.span import Span

# (stacked batch, numbers) -> losses `(members,)`, and each member's own result
StackedObjective = Callable[[Any, Mapping[str, FloatOrTensor]], tuple[Tensor, Tensor]]
# hyperparameters that are no numbers of the recipe: the batches and the objective heed them
OF_OTHERS = frozenset({"sampling", "objective"})


class Network(Copied):
    """A module, its optimiser, its schedule and its random numbers. A subclass says what it learns:

        class Digits(Network):
            def build(self):
                return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))

            def loss(self, module, batch, numbers):
                images, labels = batch
                return cross_entropy(module(images), labels, numbers["label_smoothing"])

            def score(self, module, rows):
                images, labels = rows
                return (module(images).argmax(dim=-1) == labels).double().mean(), {}

        rows = Shuffled((images, labels), batch=32)
        member = Digits(Recipe(steps=500), {"learning_rate": 0.01}, rows, {"validation": held_out}, seed=1)

    `numbers` has every number of the recipe, searched or not; a subclass of Recipe may add some.

    The three methods must work on one member and, under `torch.func.vmap`, on a stack of them, where a
    number may be a scalar tensor. So they compute with tensors, do not call `.item()` or branch on a value,
    do not change the batch in place (members may share it), and take from `self` only what all members
    share. A subclass with a step of its own says `own_step = True`.

    A subclass that says which rows it `takes`, and that its loss is `by_row`, needs neither batches of its own
    nor `score`: a run gives it rows in groups, and its score is minus the mean of the groups' losses. What it
    annotates are its constants, which the `settings:` of a run's file give: they are attributes before `build`
    is called. A constant that it names in `searched` may be a hyperparameter, and `numbers` has it.
    """

    searched: ClassVar[Set[str]] = frozenset()  # constants, all numbers, that may be hyperparameters
    priced: ClassVar[Set[str]] = frozenset()  # hyperparameters that trade loss for cost: see `costs`
    price = 0.0  # taken off the score for all of the cost
    own_step = False  # if True, its members are never stacked
    # beginnings of names of weights that an objective brings: a run of another objective begins without them
    of_objectives: tuple[str, ...] = ()
    draws_weights = True  # if False, `build` returns trained weights
    stacks_itself = False  # if True, `together` computes the losses of a stack, and not vmap

    def __init__(
        self,
        recipe: Recipe,
        hyperparameters: dict[str, Any],
        batches: Batches,
        held_out: Mapping[str, Any],  # split -> what `score` gets: an array or a nest of arrays
        seed: int,
        device: str = "cpu",
        **constants: Any,
    ):
        set_constants(self, self.constants(), constants)
        self.base, self.held_out = recipe, held_out
        self.sober = numbers(recipe) | SOBER | self.own_numbers({})
        self.batches: Any = batches  # `Batches`; a run may replace them with `Sampled` ones
        self.device = torch.device(device)
        self.span: Span | None
        self.called: nn.Module  # training calls this: the module, or what wraps it for several processes
        self.generator = torch.Generator().manual_seed(seed)
        self.trained = 0
        self.rows_a_step = 0  # rows of the last batch that was trained
        self.applied = AppliedRecipe()
        self.adopt(hyperparameters)
        with restored(self.device):
            torch.manual_seed(seed)
            self.module = self.build().to(self.device)
        if self.recipe.prior_start != 2:
            draw_anew(matrices_of(self.module), self.recipe.prior_start, np.random.default_rng([seed, 7]))
        self.applied = apply_recipe(self.module, self.recipe, hyperparameters, seed, self.draws_weights)
        self.matrices = list(matrices_of(self.module))  # their names; the prior is on them
        if self.recipe.gradient_checkpointing:
            self.compute_again()
        self.called, self.span = self.module, None
        self.optimiser = self.build_optimiser()

    @classmethod
    def constants(cls) -> dict[str, Any]:
        """Return the names of the class's constants, with their defaults; without one it is MISSING."""
        return constants_of(cls, Network)

    def own_numbers(self, chosen: Mapping[str, Any]) -> dict[str, float]:
        """Return the searched constants: what was chosen, or else the constant."""
        return {name: float(chosen.get(name, getattr(self, name))) for name in sorted(self.searched)}

    def costs(self) -> dict[str, float]:
        """Return what this member's settings cost, each as a share of its dearest value, as far as any does.

        A class that names settings as `priced` adds theirs; what it returns may also depend on its weights. The
        cost of a prior is the coded size of all weights.
        """
        found = self.applied.costs(self.recipe)
        return found | ({"prior": prior_cost(self.weights())} if "prior" in self.hyperparameters else {})

    @property
    def cost(self) -> float | None:
        """The product of all costs: a share of a share. None where no setting has one."""
        found = self.costs()
        return math.prod(found.values()) if found else None

    def float32_score(self, split: str = "validation") -> dict[str, float]:
        """Return the score without rounding, where a member computes with few bits; else nothing."""
        if not self.applied.rounded or split not in self.held_out or self.questions is not None:
            return {}
        self.module.eval()
        with torch.no_grad(), self.applied.rounding(32.0):
            score, _, _ = self.judge(self.module, to_tensors(self.held_out[split], self.device))
        return {"float32_score": score.item()}

    def spread(self, span: Span) -> None:
        """Train over several processes from now on. Each of them must call this with an equal member.

        A process trains on its part of every batch. If `loss` is a mean over rows, the mean over the processes
        is the loss of the whole batch. Every process evaluates all held-out rows. Only what happens inside
        `loss` may differ between processes.
        """
        self.span, self.called = span, span.cover(self.module)
        self.optimiser = self.build_optimiser()  # sharding has replaced the weights

    @property
    def alone(self) -> bool:
        """Whether it never trains in a stack with others."""
        return self.own_step or self.span is not None

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the module with its first weights; torch's random numbers are seeded for it."""

    def compute_again(self) -> None:
        """Let layers be computed again in the backward pass; raises ValueError if the module has no list."""
        if not recompute_parts(self.module):
            raise ValueError(
                f"gradient_checkpointing needs layers in an nn.ModuleList or nn.Sequential, "
                f"but the module of {type(self).__name__} has none."
            )

    def objective(
        self, module: nn.Module, batch: Any, numbers: Mapping[str, FloatOrTensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the scalar that is minimised, and the losses: those of all processes' rows if sampled."""
        with self.computing(), self.applied.rounding(numbers.get("bits", 32.0)):
            losses = self.loss(module, batch["rows"] if self.sampled else batch, numbers)
        losses = losses.float() if losses.dtype == torch.bfloat16 else losses
        if not self.sampled:
            return losses.mean(), losses
        if losses.dim() != 1:
            raise ValueError(
                f"with a sampling policy `loss` must return the loss of each row, `(rows,)`, "
                f"but returned a tensor of shape {tuple(losses.shape)}."
            )
        if FOUND in batch:  # the batch is computed in parts
            return (batch[FOUND] * losses).sum(), losses
        whole = self.whole(losses.detach())
        return (self.weigh(whole, batch["weights"]) * losses).sum(), whole

    def whole(self, losses: Tensor) -> Tensor:
        """Return the losses of all processes' rows: a row's weight may depend on any row of the batch."""
        return self.span.whole(losses) if self.span else losses

    def weigh(self, losses: Tensor, given: Any) -> Tensor:
        """Return the weight of each of this process's rows, from all losses and what came with the batch."""
        weights: Tensor = self.batches.weigh(losses, given)
        # gradients are averaged over the processes but must be summed, so the weights are scaled up
        return self.span.size * self.span.part(weights) if self.span else weights

    @property
    def sampled(self) -> bool:
        """Whether the batches are `Sampled`, which carry weights and want the losses back."""
        return hasattr(self.batches, "weigh")

    def adopt(self, hyperparameters: dict[str, Any]) -> None:
        self.hyperparameters = dict(hyperparameters)
        trained = {
            name: value for name, value in hyperparameters.items() if name not in OF_OTHERS.union(self.searched)
        }
        self.recipe = replace(self.base, **trained)
        assert self.recipe.optimiser == self.base.optimiser, "the optimiser's state is not searched"
        self.numbers = numbers(self.recipe) | self.own_numbers(hyperparameters)
        self.applied.fit(self.recipe, self.optimiser.state if hasattr(self, "optimiser") else {})
        for layer in self.applied.rounded:
            layer.round_to(self.numbers["bits"])

    def weights(self) -> dict[str, nn.Parameter]:
        """Return the trained weights in the optimiser's order: those that decay come first."""
        found = [(name, weight) for name, weight in self.module.named_parameters() if weight.requires_grad]
        return dict(sorted(found, key=lambda item: item[1].dim() < 2))

    def build_optimiser(self) -> torch.optim.Optimizer:
        weights = list(self.weights().values())
        groups: list[dict[str, Any]] = [
            {"params": [weight for weight in weights if weight.dim() >= 2]},
            {"params": [weight for weight in weights if weight.dim() < 2], "weight_decay": 0.0},
        ]
        rate = self.recipe.learning_rate
        if self.recipe.optimiser == "sgd":
            return torch.optim.SGD(groups, lr=rate)
        # a CPU spends a third of a step on the passes over memory that one fused pass spares
        fused = self.device.type == "cpu" and self.span is None and all(map(torch.is_floating_point, weights))
        return torch.optim.AdamW(groups, lr=rate, fused=fused or None)

    def train(self, steps: int) -> float:
        self.module.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        by_row: list[Tensor] = []
        # members of a brood take turns in one process, and each has its own random numbers
        with restored(self.device):
            for seed in self.draw_seeds(steps).tolist():
                # the processes of a member see different rows, so each draws its own dropout
                reseed(seed + (self.span.rank if self.span else 0), self.device)
                loss, losses = self.step()
                total += loss
                by_row += [losses] if self.sampled else []
        self.optimiser.zero_grad(set_to_none=True)  # exploits and checkpoints come before the next step
        if by_row:
            self.batches.observe(to_arrays(torch.stack(by_row)))
        return (self.span.mean(total) if self.span else total).item() / steps

    def draw_seeds(self, steps: int) -> Tensor:
        """Return a seed for each of the next steps: `(steps,)`."""
        return torch.randint(2**62, (steps,), generator=self.generator)

    def step(self) -> tuple[Tensor, Tensor]:
        self.set_rates()
        batch = self.batches.next()
        self.rows_a_step = rows_in(batch)
        if self.span is not None:
            batch = batch | {"rows": self.span.part(batch["rows"])} if self.sampled else self.span.part(batch)
        self.optimiser.zero_grad(set_to_none=True)
        found = self.backward(to_tensors(batch, self.device))
        self.descend()
        return found

    def backward(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Compute the gradients of a batch; return its loss and the losses, as `objective` does."""

        def objective(part: Any) -> tuple[Tensor, Tensor]:
            return self.objective(self.called, part, self.numbers)

        if self.recipe.accumulate == 1:
            loss, losses = objective(batch)
            loss.backward()
            return loss.detach(), losses.detach()
        if not self.sampled:
            return in_parts(objective, Tensor.backward, batch, self.recipe.accumulate)

        def weigh(losses: Tensor, given: Any) -> Tensor:
            return self.weigh(self.whole(losses), given)

        loss, losses = in_parts(objective, Tensor.backward, batch, self.recipe.accumulate, weigh=weigh)
        return loss, self.whole(losses)

    def descend(self) -> None:
        """Take the optimiser's step along the gradients that are there."""
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.clip)
        self.optimiser.step()
        self.shrink(rate_at(self.trained, self.recipe))
        self.trained += 1

    def begin_step(self, trained: int) -> None:
        """Let buffers of the module have what this step asks for, after so many; alone or in a stack."""

    def shrink(self, rate: float) -> None:
        """Move matrices towards 0 as the prior says, after a step of this learning rate."""
        if self.recipe.prior:
            for name, weight in self.weights().items():
                if name in self.matrices:
                    shrink_to_zero(weight, rate * self.recipe.prior, self.recipe.prior_shape)

    def set_rates(self) -> None:
        self.begin_step(self.trained)
        recipe = self.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(self.trained, recipe)
            # AdamW ignores the momentum, and SGD ignores the betas
            group["betas"], group["momentum"] = (recipe.beta1, recipe.beta2), recipe.momentum
        self.optimiser.param_groups[0]["weight_decay"] = recipe.weight_decay

    def together(self, tensors: Mapping[str, Tensor]) -> AbstractContextManager[StackedObjective]:
        """Return a context whose function computes the objectives of all members of a stack.

        Only a class that `stacks_itself` has it. The function takes a stacked batch and the numbers, of which
        some are `(members,)`. It returns what `objective` does, for each member. `tensors` are the members'
        weights by name, `(members, *shape)`.
        """
        raise NotImplementedError

    def freeze(self, patterns: Sequence[str]) -> None:
        """Let the weights that a pattern names train no more; they have no slots, and do not decay.

        Raises ValueError for a pattern that no weight fits, or if nothing would train.
        """
        frozen_by(self.module, patterns)
        if not self.weights():
            raise ValueError(f"freeze must leave a weight that trains, but got {', '.join(patterns)}.")
        self.optimiser = self.build_optimiser()
