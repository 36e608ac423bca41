"""What a network gives away and takes over: at an exploit, in a checkpoint, at a resume."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shoal.trainables.arrays import copy_into, to_arrays, to_clones, to_views
from shoal.trainables.handover import hand_in, handed_out, place_in_memory
from shoal.trainables.judged import Judged
from shoal.trainables.member import SavedState, copies
from shoal.trainables.recipes.applied import AppliedRecipe
from shoal.trainables.recipes.densities import has_masks, without_masks
from shoal.trainables.slots import load_slots
from shoal.trainables.span import Span, local


class Copied(Judged):
    """The part of a Network that copies: weights, slots, random numbers, its place in the data."""

    optimiser: torch.optim.Optimizer
    generator: torch.Generator
    batches: Any
    span: Span | None
    applied: AppliedRecipe

    @abstractmethod
    def weights(self) -> Mapping[str, nn.Parameter]:
        """Return the trained weights in the optimiser's order."""

    @abstractmethod
    def adopt(self, hyperparameters: dict[str, Any]) -> None:
        """Go on with these hyperparameters."""

    @copies
    def state(self, copied: Callable[[Any], Any] = to_arrays) -> SavedState:
        return {
            "weights": copied(self.held()),
            "optimiser": copied(self.optimiser.state_dict()["state"]),
            **({"shared": self.shared()} if self.span else {}),
            **({"buffers": names} if (names := self.buffers()) else {}),
            **handed_out(self.progress),
        }

    def state_in_place(self) -> SavedState:
        """Return the state with weights and slots as tensors on their device; `load` accepts it too."""
        return self.state(lambda tree: to_clones(tree, self.device))

    def state_as_it_lies(self) -> SavedState:
        """Return the state with weights and slots as arrays in the member's memory: good until it changes."""
        return self.state(to_views)

    def buffers(self) -> list[str]:
        """Return the names of what is held beside what the optimiser trains, and so has no slots."""
        trained = {id(weight) for weight in self.weights().values()}
        parameters = self.module.named_parameters(remove_duplicate=False)
        others = {name for name, weight in parameters if id(weight) not in trained}
        others |= dict(self.module.named_buffers(remove_duplicate=False)).keys()
        return sorted(self.held().keys() & others)

    def shared(self) -> list[str]:
        """Return the names of sharded weights: each process holds a part of the first axis, by its rank."""
        return [name for name, value in self.held().items() if value is not local(value)]

    def held(self) -> dict[str, Tensor]:
        """Return the member's own tensors of the module's state; tied ones once, by their first name."""
        found: dict[Any, tuple[str, Tensor]] = {}
        for name, value in self.module.state_dict().items():
            found.setdefault(place_in_memory(value), (name, value))
        return dict(found.values())

    @copies
    def progress(self) -> SavedState:
        """Return the part of the state that is not on the device."""
        return {
            "random": to_arrays(self.generator.get_state()),
            "batches": handed_out(self.batches.state),
            "trained": self.trained,
            **({"score": [self.last_score, self.scored_at]} if self.questions else {}),
        }

    @copies
    def load(self, state: SavedState, hyperparameters: dict[str, Any]) -> None:
        self.load_weights(state["weights"])
        load_slots(self.optimiser, self.recipe.optimiser, list(self.weights().items()), state["optimiser"])
        rest = {key: value for key, value in state.items() if key not in ("weights", "optimiser")}
        hand_in(self.load_progress, rest)
        self.adopt(hyperparameters)

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Copy weights by name into the module; raises ValueError if they are of other layers or shapes."""
        held = own = self.held()
        if not (has_masks(held) and has_masks(weights)):  # an export has none: this member's own ones stay
            own, weights = without_masks(held), without_masks(weights)
        # older versions kept tied weights under each of their names
        tied = self.module.state_dict().keys() - own.keys()
        if apart := ", ".join(sorted(own.keys() ^ (weights.keys() - tied))):
            raise ValueError(
                f"the copied weights must come from a network of the same layers, but only one has {apart}."
            )
        for name, target in own.items():
            copy_into(local(target), weights[name], name)
        if len(own) < len(held):
            self.applied.fit(self.recipe, {})

    @copies
    def load_progress(self, state: SavedState) -> None:
        self.generator.set_state(torch.from_numpy(np.array(state["random"])))
        hand_in(self.batches.load, state["batches"])
        self.trained = int(state["trained"])
        if "score" in state:
            self.last_score, self.scored_at = float(state["score"][0]), int(state["score"][1])
