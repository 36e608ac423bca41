"""Members of one architecture, trained as one model whose weights have a first axis over members."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from shoal.trainables.accumulate import PartObjective, in_parts
from shoal.trainables.arrays import is_words, leaves_of, map_nest, rows_in, stack, to_arrays, to_tensors
from shoal.trainables.batches import alike
from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.member import Member
from shoal.trainables.network import Network
from shoal.trainables.optimise import OPTIMISERS, AdamW, clip, clip_divisors
from shoal.trainables.randomness import reseed, restored
from shoal.trainables.settings import rate_at
from shoal.trainables.stacked_loss import Called, StackedLoss, compiled, explained, stacked_loss
from shoal.trainables.vmap_on_cpu import attention, linear_layers

NUMBERS = ("weight_decay", "beta1", "beta2", "momentum")  # the optimisers use these


def signature(member: Member) -> tuple[Any, ...]:
    """Return what the members of a stack must have in common."""
    weights = member.weights() if isinstance(member, Network) else {}
    mixed = len({weight.dtype for weight in weights.values()}) != 1
    if not isinstance(member, Network) or member.alone or mixed:
        return (id(member),)  # equal to no other member's
    tensors = [
        [(name, value.shape, value.dtype) for name, value in part.items()]
        for part in (weights, untrained_tensors(member))
    ]
    try:
        cursor = handed_out(member.batches.state)
        drawn = member.batches.next()
        hand_in(member.batches.load, cursor)
    except Exception:  # batches of the user's own may raise anything, and do so again when the member trains
        return (id(member),)
    if any(map(is_words, leaves_of(drawn))):  # vmap takes tensors alone
        return (id(member),)
    batch = map_nest(lambda leaf: (leaf.shape, leaf.dtype), drawn)
    words = {name: value for name, value in asdict(member.recipe).items() if name not in member.numbers}
    # compared as text, because a module's settings may not be hashable
    return type(member), str(member.device), repr((tensors, module_settings(member.module), batch, words))


def module_settings(module: nn.Module) -> list[Any]:
    """Return the settings in which modules with the same weights can differ, such as the number of heads."""
    return [
        (name, type(part), [item for item in vars(part).items() if item[0][0] != "_" and item[0] != "training"])
        for name, part in module.named_modules()
    ]


def stackable(first: Member, second: Member) -> bool:
    return signature(first) == signature(second)


def stacks(members: Mapping[int, Member]) -> list[list[int]]:
    """Return the members' numbers in groups that can be stacked; a member that fits no other is alone."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, member in members.items():
        groups.setdefault(signature(member), []).append(number)
    return list(groups.values())


def untrained_tensors(member: Network) -> dict[str, Tensor]:
    """Return the member's own tensors that are not trained by gradients."""
    state = member.held()
    frozen = {
        name: value
        for name, value in member.module.named_parameters()
        if name in state and not value.requires_grad
    }
    # buffers outside the state are not copied with it, so they are the same constants in every member
    return frozen | {name: value for name, value in member.module.named_buffers() if name in state}


class Stack:
    """Trains its members together, each with its own numbers, age, batches and optimiser state.

    The members' weights and slots become rows of the stack's matrices `(members, parameters)`. A member
    stays whole: its `state`, `load`, `evaluate` and even `train` read and write its row.

    The first member's loss and score are computed on every member's weights. Dropout draws from one
    generator that is seeded by the random states of all, so it depends on which members are in the stack.
    """

    def __init__(self, members: Sequence[Network], compile: bool = False):
        self.members, self.compile = list(members), compile
        self.known: tuple[dict[str, float], StackedLoss] | None = None  # the compiled loss, and its numbers
        self.check()
        first = self.members[0]
        self.device, self.optimiser = first.device, OPTIMISERS[first.recipe.optimiser]
        weights = first.weights()
        self.weights = torch.stack([flat_weights(member) for member in self.members])
        self.slots = {name: torch.zeros_like(self.weights) for name in self.optimiser.slots}
        rests = [untrained_tensors(member) for member in self.members]
        self.kept = {name: torch.stack([rest[name].detach() for rest in rests]) for name in rests[0]}
        self.shapes = [weight.shape for weight in weights.values()]
        # gradients are taken with respect to these
        self.leaves = {
            name: part.detach().requires_grad_()
            for name, part in zip(weights, self.shaped(self.weights), strict=True)
        }
        self.seat_weights()
        self.seat_slots()

    def check(self) -> None:
        if len({signature(member) for member in self.members}) != 1:
            raise ValueError("all members of a stack must be stackable: group them by `stacks`.")

    def shaped(self, matrix: Tensor) -> list[Tensor]:
        """Return views of a matrix's columns, one for each weight: `(members, *shape)`."""
        parts = matrix.split([shape.numel() for shape in self.shapes], dim=1)
        return [part.view(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def seat_weights(self) -> None:
        for place, member in enumerate(self.members):
            rest = untrained_tensors(member)
            for name, weight in member.weights().items():
                weight.data = self.leaves[name].detach()[place]
            for name, values in self.kept.items():
                rest[name].data = values[place]

    def seat_slots(self) -> None:
        """Make the rows the members' slots again: one that loaded or trained alone has slots of its own."""
        parts = {name: self.shaped(matrix) for name, matrix in self.slots.items()}
        for place, member in enumerate(self.members):
            for index, weight in enumerate(member.weights().values()):
                seats = {name: shaped[index][place] for name, shaped in parts.items()}
                take_over(seats, member.optimiser.state.get(weight, {}))
                count = {"step": torch.tensor(float(member.trained))} if self.optimiser.counts else {}
                member.optimiser.state[weight] = seats | count

    def train(self, steps: int) -> list[float]:
        """Train, and return each member's mean training loss. One that diverges does not change the others."""
        self.seat_slots()
        self.members[0].module.train()
        batches = [member.batches for member in self.members]
        shared = alike(batches)
        update = self.update(steps)
        seeds = torch.stack([member.draw_seeds(steps) for member in self.members]).sum(dim=0)
        total = torch.zeros(len(self.members), dtype=torch.float64, device=self.device)
        by_row: list[Tensor] = []  # (members, rows) for each step
        with ExitStack() as contexts:
            contexts.enter_context(restored(self.device))
            loss = self.loss(contexts)
            for step, seed in enumerate(seeds.tolist()):
                reseed(seed, self.device)
                for member in self.members:
                    member.begin_step(member.trained + step)
                losses, rows, gradients = self.slopes(
                    loss, self.shared_batch() if shared else self.own_batches()
                )
                by_row += [rows.detach()] if self.members[0].sampled else []
                update(step, gradients)
                for member in self.members:
                    member.shrink(rate_at(member.trained + step, member.recipe))
                total += losses.detach()
        if shared:
            for each in batches[1:]:
                hand_in(each.load, handed_out(batches[0].state))
        if by_row:
            for member, losses in zip(self.members, to_arrays(torch.stack(by_row, dim=1)), strict=True):
                member.batches.observe(losses)
        for member in self.members:
            member.trained += steps
        self.seat_slots()
        means: list[float] = (total / steps).tolist()
        return means

    def own_batches(self) -> Any:
        drawn = [member.batches.next() for member in self.members]
        self.note_rows(drawn[0])
        return to_tensors(map_nest(stack, *drawn), self.device)

    def shared_batch(self) -> Any:
        """Return the first member's next batch, repeated for all members in the memory of one."""
        batch = to_tensors(self.members[0].batches.next(), self.device)
        self.note_rows(batch)
        all_alike = map_nest(lambda leaf: leaf.expand(len(self.members), *leaf.shape), batch)
        # separate batches are contiguous: another layout would be compiled once more
        return map_nest(Tensor.contiguous, all_alike) if self.compile else all_alike

    def note_rows(self, batch: Any) -> None:
        for member in self.members:
            member.rows_a_step = rows_in(batch)

    def update(self, steps: int) -> Callable[[int, Sequence[Tensor]], None]:
        """Return the function that clips gradients `(members, *shape)` and does one step of the interval."""
        told = [[numbers_at(member, step) for member in self.members] for step in range(steps)]
        limits = member_column([member.recipe.clip for member in self.members]).to(self.weights)
        if self.device.type == "cpu" and isinstance(self.optimiser, AdamW):
            return self.update_rows(self.optimiser, told, limits[:, 0])
        optimiser, decayed = self.optimiser, sum(shape.numel() for shape in self.shapes if len(shape) >= 2)
        table = {name: member_column([[each[name] for each in now] for now in told]) for name in told[0][0]}
        factors = {name: values.to(self.weights) for name, values in optimiser.factors(table).items()}

        def update(step: int, gradients: Sequence[Tensor]) -> None:
            now = {name: values[step] for name, values in factors.items()}
            matrix = torch.cat([gradient.flatten(start_dim=1) for gradient in gradients], dim=1)
            clip(matrix, limits)
            optimiser.update(self.weights, matrix, self.slots, now, decayed)

        return update

    def update_rows(
        self, optimiser: AdamW, told: Sequence[Sequence[dict[str, float]]], limits: Tensor
    ) -> Callable[[int, Sequence[Tensor]], None]:
        """Return the same function for a CPU, where memory is slow: member by member and without copies."""
        decayed = sum(len(shape) >= 2 for shape in self.shapes)
        weights = list(zip(*self.shaped(self.weights), strict=True))
        slots = {name: list(zip(*self.shaped(matrix), strict=True)) for name, matrix in self.slots.items()}
        rows = [(row, {name: slots[name][place] for name in slots}) for place, row in enumerate(weights)]

        def update(step: int, gradients: Sequence[Tensor]) -> None:
            laid = [gradient.contiguous() for gradient in gradients]  # the weights are contiguous too
            divisors = clip_divisors(laid, limits).float()  # float32 for weights of any type
            each = zip(rows, zip(*laid, strict=True), told[step], divisors, strict=True)
            for seats, gradient, numbers, divisor in each:
                optimiser.update_one(*seats, gradient, numbers, decayed, divisor)

        return update

    def slopes(self, loss: PartObjective, batch: Any) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        """Return losses `(members,)`, each member's own result, and the gradients `(members, *shape)`."""
        leaves, first = list(self.leaves.values()), self.members[0]
        summed: list[Sequence[Tensor]] = []

        def descend(losses: Tensor) -> None:
            # no loss depends on another member's weights, so the sum's gradient holds each one's own
            found = torch.autograd.grad(losses.sum(), leaves, materialize_grads=True)
            summed[:] = [[one + more for one, more in zip(summed[0], found, strict=True)] if summed else found]

        if first.recipe.accumulate == 1:
            losses, rows = loss(batch)
            descend(losses)
        else:
            weigh = vmap(first.weigh) if first.sampled else None
            losses, rows = in_parts(loss, descend, batch, first.recipe.accumulate, axis=1, weigh=weigh)
        return losses, rows, summed[0]

    def loss(self, contexts: ExitStack) -> PartObjective:
        """Return the function from a stacked batch to losses `(members,)`, and each member's own result.

        It holds within the contexts that are entered here.
        """
        each = [member.numbers for member in self.members]
        table = {name: [numbers[name] for numbers in each] for name in each[0]}
        # a searched number may differ later: it is a tensor at once, so that no copy causes a compilation
        searched = {name for member in self.members for name in member.hyperparameters if self.compile}
        # a number that all members share stays a float, so that a dropout of 0 costs nothing
        same = {
            name: values[0] for name, values in table.items() if len(set(values)) == 1 and name not in searched
        }
        varied = {
            name: torch.tensor(values, device=self.device) for name, values in table.items() if name not in same
        }
        if self.members[0].stacks_itself:
            together = contexts.enter_context(self.members[0].together(self.leaves))
            return lambda batch: together(batch, {**same, **varied})
        contexts.enter_context(attention(self.device))
        way = explained() if self.compile else linear_layers(self.members[0].module, self.device)
        contexts.enter_context(way)
        function = self.compiled(same) if self.compile else stacked_loss(self.members[0], same)
        return lambda batch: function(self.tensors(), varied, batch)

    def compiled(self, same: dict[str, float]) -> StackedLoss:
        """Return the compiled loss; it is compiled anew only if the shared numbers have changed."""
        if self.known is None or self.known[0] != same:
            self.known = same, compiled(stacked_loss(self.members[0], same), self.device)
        return self.known[1]

    def tensors(self) -> dict[str, Tensor]:
        return {f"module.{name}": values for name, values in (self.leaves | self.kept).items()}

    def evaluate(self, split: str = "validation") -> list[tuple[float, dict[str, float]]]:
        """Return each member's score and losses."""
        shared = all(member.held_out is self.members[0].held_out for member in self.members)
        # a CPU gains nothing: held-out rows are many, so the pass of one member keeps it busy
        first = self.members[0]
        apart = self.device.type == "cpu" or first.stacks_itself or first.questions is not None
        apart = apart or bool(first.applied.rounded)  # each rounds by its own number of bits
        if shared and not apart and split in self.members[0].held_out:
            return self.evaluate_together(split)
        return [member.evaluate(split) for member in self.members]

    def evaluate_together(self, split: str) -> list[tuple[float, dict[str, float]]]:
        first = self.members[0]
        first.module.eval()
        called, rows = Called(first, "judge"), to_tensors(first.held_out[split], self.device)
        with torch.no_grad(), attention(self.device), first.computing():
            scores, losses, errors = vmap(lambda tensors: functional_call(called, tensors, (rows,)))(
                self.tensors()
            )
        each = {group: values.tolist() for group, values in losses.items()}
        for place, member in enumerate(self.members):
            member.loss_errors = {group: values[place].item() for group, values in errors.items()}
        return [
            (score, {group: values[place] for group, values in each.items()})
            for place, score in enumerate(scores.tolist())
        ]

    def gather(self, parents: Sequence[int], hyperparameters: Sequence[dict[str, Any]]) -> None:
        """Give each member its parent's state and new hyperparameters; parents are places in the stack.

        A member may be its own parent.
        """
        self.seat_slots()
        targets = [place for place, parent in enumerate(parents) if parent != place]
        donors = [parents[place] for place in targets]
        progress = {donor: handed_out(self.members[donor].progress) for donor in set(donors)}
        for matrix in (self.weights, *self.slots.values(), *self.kept.values()):
            matrix[targets] = matrix[donors]
        for target, donor in zip(targets, donors, strict=True):
            hand_in(self.members[target].load_progress, progress[donor])
        for member, values in zip(self.members, hyperparameters, strict=True):
            member.adopt(values)


def numbers_at(member: Network, step: int) -> dict[str, float]:
    """Return the optimiser's numbers at a step of the interval that begins now, counted from 0."""
    known = {name: member.numbers[name] for name in NUMBERS}
    return known | {"rate": rate_at(member.trained + step, member.recipe), "age": member.trained + step + 1}


def take_over(seats: Mapping[str, Tensor], slots: Mapping[str, Tensor]) -> None:
    """Copy slots into their seats unless they lie there. Before the first step there are none: they are 0."""
    for name, seat in seats.items():
        if name not in slots:
            seat.zero_()
        elif slots[name].data_ptr() != seat.data_ptr():
            seat.copy_(slots[name])


def flat_weights(member: Network) -> Tensor:
    return torch.cat([weight.detach().reshape(-1) for weight in member.weights().values()])


def member_column(values: Sequence[Any]) -> Tensor:
    """Return `(..., members, 1)`."""
    return torch.tensor(values, dtype=torch.float64)[..., None]
