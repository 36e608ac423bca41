"""What of a network's layers is masked or rounded, as its recipe says."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from shoal.trainables.recipes.layers import RecipeLinear
from shoal.trainables.recipes.masks import counts_of, fit_masks, scale_up, spared_weights, thin_out
from shoal.trainables.recipes.rounded import bits_a_number, is_rounded
from shoal.trainables.searched_numbers import FloatOrTensor
from shoal.trainables.settings import Recipe

Slots = Mapping[Any, Mapping[str, Tensor]]


@dataclass
class AppliedRecipe:
    """The masked layers by name, and the rounded ones; most members have neither."""

    masked: dict[str, Any] = field(default_factory=dict)
    rounded: list[RecipeLinear] = field(default_factory=list)

    def fit(self, recipe: Recipe, slots: Slots) -> None:
        """Let the masks have the recipe's density, in place."""
        if self.masked:
            fit_masks(self.masked, counts_of(self.masked, recipe.density, recipe.densities), slots)

    def costs(self, recipe: Recipe) -> dict[str, float]:
        found = {"density": recipe.density} if self.masked else {}
        return found | ({"bits": bits_a_number(recipe.bits) / 32} if self.rounded else {})

    def rounding(self, bits: FloatOrTensor) -> AbstractContextManager[None]:
        """Return a context in which the layers compute with so many bits."""
        return self._rounding(bits) if self.rounded else nullcontext()

    @contextmanager
    def _rounding(self, bits: FloatOrTensor) -> Iterator[None]:
        before = [layer.bits for layer in self.rounded]
        try:
            for layer in self.rounded:
                layer.round_to(bits)
            yield
        finally:
            for layer, known in zip(self.rounded, before, strict=True):
                layer.round_to(known)


def apply_recipe(
    module: nn.Module, recipe: Recipe, searched: Mapping[str, Any], seed: int, drawn: bool
) -> AppliedRecipe:
    """Mask and round a new module's layers, in place, if the recipe or a searched setting asks for it.

    The masks' order depends on the member's seed. Weights that were `drawn` are scaled up. Raises ValueError
    for a module without such layers.
    """
    applied = AppliedRecipe()
    if "density" in searched or recipe.density < 1:
        applied.masked = thin_out(module, seed)
        if drawn and recipe.mask_scale:
            scale_up(applied.masked, counts_of(applied.masked, recipe.density, recipe.densities))
        applied.fit(recipe, {})
    if "bits" in searched or is_rounded(recipe.bits):
        applied.rounded = round_layers(module, recipe)
    return applied


def round_layers(module: nn.Module, recipe: Recipe) -> list[RecipeLinear]:
    """Let the linear layers round what they multiply, all but a model's output; return them."""
    if recipe.precision != "float32" or recipe.gradient_checkpointing:
        key = "gradient_checkpointing" if recipe.gradient_checkpointing else "precision"
        raise ValueError(f"{key} must be left out with bits, which are emulated in float32.")
    spared = spared_weights(module)
    found: list[Any] = [
        part
        for part in module.modules()
        if type(part) in (nn.Linear, RecipeLinear) and part.weight not in spared
    ]
    if not found:
        raise ValueError("bits must be 32 for a network without linear layers.")
    for layer in found:
        layer.__class__ = RecipeLinear
        layer.round_to(float(recipe.bits))
        layer.whole_numbers, layer.stochastic = recipe.elements == "int", recipe.rounding == "stochastic"
    return found
