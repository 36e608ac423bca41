"""The proxy runs of DoReMi and DoGE: small models that are trained to find a mixture."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.contexts import ContextModel
from policies.mixers.doremi import clipped_excess
from policies.mixers.proxy import answer
from policies.mixers.visits import Outcome, begin, left, observe, plan
from trainables.alignment import Gradient, gradients, inner_products, weighted

Measure = Callable[[Tensor, NDArray[np.int64], Tensor, list[Gradient]], dict[str, Any]]


def by_token(model: ContextModel, tokens: Tensor) -> Tensor:
    """Return the loss of each token but the first, `(rows, length - 1)`."""
    logits = model.module(tokens)[:, :-1]
    return functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")


def found_mixture(model: ContextModel, measure: Measure) -> NDArray[np.float64]:
    """Train the proxy to the end of its budget on weighted group losses; return the mean of its weights."""
    groups, weights = model.groups, list(model.weights().values())
    state = begin(model.mixing, groups, 0)
    while left(groups, state):
        visit, state = plan(model.mixing, groups, state, limit=1)
        counts = visit.counts[0]
        owners = np.repeat(np.arange(groups.count), counts)
        tokens = torch.from_numpy(model.batches.mixed.take(counts.tolist())).long()
        losses = by_token(model, tokens)
        means = [losses[owners == group].mean() for group in range(groups.count)]
        slopes = gradients(means, weights)
        measured = measure(losses.detach(), owners, tokens, slopes)
        assert visit.weights is not None
        # a group without a row has no loss to weigh
        shares = np.where(counts > 0, visit.weights, 0.0)
        descend(model, weights, weighted(slopes, (shares / shares.sum()).tolist()))
        state = observe(model.mixing, groups, state, visit, Outcome(**measured))
    return answer(state)


def descend(model: ContextModel, weights: list[Any], slope: Gradient) -> None:
    model.set_rates()
    for weight, part in zip(weights, slope, strict=True):
        weight.grad = part.to(weight.dtype)
    torch.nn.utils.clip_grad_norm_(weights, model.recipe.clip)
    model.optimiser.step()
    model.trained += 1


def excess_over(reference: ContextModel) -> Measure:
    """Return what DoReMi measures: each group's clipped excess over a trained reference."""

    def measure(
        losses: Tensor, owners: NDArray[np.int64], tokens: Tensor, slopes: list[Gradient]
    ) -> dict[str, Any]:
        with torch.no_grad():
            known = by_token(reference, tokens)
        return {"excess": clipped_excess(losses.numpy(), known.numpy(), owners, len(slopes))[None]}

    return measure


def alignment(
    losses: Tensor, owners: NDArray[np.int64], tokens: Tensor, slopes: list[Gradient]
) -> dict[str, Any]:
    """Return what DoGE measures: inner products of the groups' gradients, and their norms."""
    products = inner_products(slopes, slopes).numpy()
    return {"alignment": products[None], "norms": np.sqrt(np.diag(products))[None]}
