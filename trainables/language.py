"""A language model as a member: the decoder, AdamW, warm-up and decay."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.arrays import copy_into, to_arrays
from trainables.decoder import Decoder, initialise, token_losses
from trainables.member import Batches, State
from trainables.settings import Recipe, Shape, rate_at


class LanguageModel:
    """One decoder in training on token rows; scores itself by minus the mean validation loss."""

    def __init__(
        self,
        shape: Shape,
        recipe: Recipe,
        hyperparameters: dict[str, Any],
        batches: Batches,
        held_out: Mapping[str, Mapping[str, NDArray[np.integer]]],  # split -> group -> (rows, length)
        seed: int,
        device: str = "cpu",
    ):
        self.device = torch.device(device)
        self.base, self.batches, self.held_out = recipe, batches, held_out
        self.generator = torch.Generator().manual_seed(seed)
        self.trained = 0
        self.model = Decoder(shape)
        initialise(self.model, self.generator)
        self.model.to(self.device)
        weights = [weight for weight in self.model.parameters() if weight.dim() >= 2]
        gains = [weight for weight in self.model.parameters() if weight.dim() < 2]
        groups: list[dict[str, Any]] = [{"params": weights}, {"params": gains, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate)
        self.adopt(hyperparameters)

    def adopt(self, hyperparameters: dict[str, Any]) -> None:
        self.hyperparameters = dict(hyperparameters)
        self.recipe = Recipe(**{**asdict(self.base), **hyperparameters})

    def train(self, steps: int) -> float:
        self.model.train()
        self.model.dropout = self.recipe.dropout
        total = 0.0
        # members of a brood take turns in one process: each brings its own random numbers
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            for _ in range(steps):
                torch.manual_seed(int(torch.randint(2**62, (1,), generator=self.generator)))
                total += self.step()
        return total / steps

    def step(self) -> float:
        recipe, weights = self.recipe, self.optimiser.param_groups[0]
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(self.trained, recipe)
            group["betas"] = (recipe.beta1, recipe.beta2)
        weights["weight_decay"] = recipe.weight_decay
        tokens = self.tokens(self.batches.next())
        loss = token_losses(self.model(tokens), tokens).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.optimiser.step()
        self.trained += 1
        return loss.item()

    def evaluate(self, split: str = "validation") -> tuple[float, dict[str, float]]:
        self.model.eval()
        losses = {}
        with torch.no_grad():
            for group, rows in self.held_out[split].items():
                parts = [self.tokens(rows[i : i + 64]) for i in range(0, len(rows), 64)]
                each = torch.cat([token_losses(self.model(part), part) for part in parts])
                losses[group] = each.mean().item()
        return -sum(losses.values()) / len(losses), losses

    def tokens(self, rows: NDArray[np.integer]) -> torch.Tensor:
        return torch.from_numpy(rows.astype(np.int64)).to(self.device)

    def state(self) -> State:
        return {
            "weights": to_arrays(self.model.state_dict()),
            "optimiser": to_arrays(self.optimiser.state_dict()["state"]),
            "random": to_arrays(self.generator.get_state()),
            "batches": self.batches.state(),
            "trained": self.trained,
        }

    def load(self, state: State, hyperparameters: dict[str, Any]) -> None:
        own = self.model.state_dict()
        if own.keys() != state["weights"].keys():
            raise ValueError("the copied weights must come from a network of the same layers.")
        for name, target in own.items():
            copy_into(target, state["weights"][name], name)
        self.load_optimiser(state["optimiser"])
        self.generator.set_state(torch.from_numpy(np.array(state["random"])))
        self.batches.load(state["batches"])
        self.trained = int(state["trained"])
        self.adopt(hyperparameters)

    def load_optimiser(self, slots: State) -> None:
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.optimiser.state.clear()
        for place, values in slots.items():
            weight = parameters[int(place)]
            self.optimiser.state[weight] = {
                name: torch.from_numpy(np.array(value)).to(weight.device if np.ndim(value) else "cpu")
                for name, value in values.items()
            }
