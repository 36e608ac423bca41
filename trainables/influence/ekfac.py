"""Influence of rows on queries, by the Gauss-Newton matrix in Kronecker factors (EK-FAC: Grosse et al., 2023).

For each linear layer the matrix is taken to be diagonal in the basis `outputs x inputs`, the eigenvectors of
the covariances of slopes and inputs; the diagonal is then measured there, gradients of whole rows squared
(George et al., 2018). Labels are drawn from the model, not those of the data.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from shoal.trainables.influence.likelihoods import LabelledRows, Likelihood
from shoal.trainables.influence.traces import LayerTrace, traces

DAMPING = 0.1  # this share of a layer's mean curvature is added to all of it
GRADIENT_NUMBERS = 1 << 26  # numbers of gradients of one layer that are in memory at once
Layers = Mapping[str, nn.Module]


class LayerFactors(NamedTuple):
    inputs: Tensor  # (in, in) eigenvectors of the inputs' covariance, one in each column
    outputs: Tensor  # (out, out) those of the slopes' covariance
    curvature: Tensor  # (out, in) mean square of a row's gradient in these bases

    def solve(self, gradients: Tensor, damping: float | None) -> Tensor:
        """Return gradients `(rows, out, in)` times the inverse of the damped matrix."""
        added = DAMPING * float(self.curvature.mean()) if damping is None else damping
        turned = self.outputs.T @ gradients @ self.inputs
        return self.outputs @ (turned / (self.curvature + added)) @ self.inputs.T


class Query(NamedTuple):
    """What one layer's gradients are multiplied with, for each query: a matrix, or `left @ right`."""

    left: Tensor  # (queries, out, in), or (queries, out, rank)
    right: Tensor | None  # (queries, rank, in)

    def products(self, trace: LayerTrace) -> Tensor:
        """Return each row's gradient times each query, `(rows, queries)`."""
        if self.right is None:
            return trace.gradients().flatten(1) @ self.left.flatten(1).T
        # a matrix of low rank needs no gradients of rows in full
        first = torch.einsum("nto,qor->ntqr", trace.slopes, self.left)
        second = torch.einsum("nti,qri->ntqr", trace.inputs, self.right)
        return (first * second).sum(dim=(1, 3))


CurvatureFactors = dict[str, LayerFactors]
Queries = dict[str, Query]


def fit_factors(
    likelihood: Likelihood,
    layers: Layers,
    batches: Sequence[LabelledRows],
    draws: torch.Generator,
    passes: int = 1,
) -> CurvatureFactors:
    """Return the factors of each layer, from two times `passes` passes over batches of training rows."""

    def sampled() -> Iterable[dict[str, LayerTrace]]:
        for batch in [*batches] * passes:
            yield traces(layers, partial(likelihood.sampled, batch, draws))[0]

    found = covariances(sampled())
    # gradients are float32 at least, whatever the weights are
    exact = torch.float64 if next(likelihood.module.parameters()).dtype == torch.float64 else torch.float32
    bases = {name: (vectors(first, exact), vectors(second, exact)) for name, (first, second) in found.items()}
    sums, rows = dict[str, Tensor](), 0
    for traced in sampled():
        for name, trace in traced.items():
            inputs, outputs = bases[name]
            turned = LayerTrace(trace.inputs @ inputs, trace.slopes @ outputs)
            squares = turned.gradients().square().sum(dim=0).double()
            sums[name] = sums[name] + squares if name in sums else squares
        rows += len(trace.inputs)
    return {name: LayerFactors(*bases[name], (each / rows).to(exact)) for name, each in sums.items()}


def covariances(found: Iterable[dict[str, LayerTrace]]) -> dict[str, list[Tensor]]:
    """Return the second moments of inputs and slopes over all tokens, up to a factor."""
    sums: dict[str, list[Tensor]] = {}
    for traced in found:
        for name, trace in traced.items():
            used = trace.slopes.any(dim=2)  # no loss depends on padding, nor on what comes last
            flat = [part[used] for part in trace]
            products = [(part.T @ part).double() for part in flat]
            had = sums.get(name)
            sums[name] = products if had is None else [a + b for a, b in zip(had, products, strict=True)]
    return sums


def vectors(covariance: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the eigenvectors of a covariance, one in each column."""
    return torch.linalg.eigh(covariance).eigenvectors.to(dtype)


def solved_queries(
    likelihood: Likelihood,
    layers: Layers,
    factors: CurvatureFactors,
    batches: Iterable[LabelledRows],
    rank: int | None = None,
    damping: float | None = None,
) -> Queries:
    """Return the gradients of query rows times the inverse, each kept as its `rank` largest singular vectors.

    `damping` is added to the curvature; by default it is a tenth of each layer's mean curvature.
    """
    parts: dict[str, list[Query]] = {name: [] for name in factors}
    for batch in batches:
        for name, trace in traces(layers, partial(likelihood.losses, batch))[0].items():
            parts[name].append(low_rank_query(factors[name].solve(trace.gradients(), damping), rank))
    return {name: stacked_queries(each) for name, each in parts.items()}


def mean_query(
    likelihood: Likelihood,
    layers: Layers,
    factors: CurvatureFactors,
    batches: Iterable[LabelledRows],
    damping: float | None = None,
) -> Queries:
    """Return the mean over query rows as one query, for no more than the cost of one."""
    sums, rows = dict[str, Tensor](), 0
    for batch in batches:
        found, losses = traces(layers, partial(likelihood.losses, batch))
        rows += len(losses)
        for name, trace in found.items():
            summed = trace.slopes.flatten(0, 1).T @ trace.inputs.flatten(0, 1)
            sums[name] = sums[name] + summed if name in sums else summed
    return {name: Query(factors[name].solve(each[None] / rows, damping), None) for name, each in sums.items()}


def influences(likelihood: Likelihood, layers: Layers, queries: Queries, batch: LabelledRows) -> Tensor:
    """Return by how much each row lowers the queries' losses, `(rows, queries)`.

    It is the slope by the row's weight in the sum of all rows' losses: training on a row of influence 1 with a
    weight of 1 / N lowers the query's loss by 1 / N.
    """
    found, _ = traces(layers, partial(likelihood.losses, batch))
    return torch.stack([queries[name].products(trace) for name, trace in found.items()]).sum(dim=0)


def rows_at_once(layers: Layers) -> int:
    """Return for how many rows the gradients of the largest layer fit into memory."""
    largest = max(part.weight.numel() for part in layers.values())  # type: ignore[operator]
    return max(1, min(128, GRADIENT_NUMBERS // largest))


def low_rank_query(matrices: Tensor, rank: int | None) -> Query:
    """Return matrices `(queries, out, in)` as their largest singular vectors."""
    if rank is None or rank >= min(matrices.shape[1:]):
        return Query(matrices, None)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    return Query(left[:, :, :rank] * values[:, None, :rank], right[:, :rank])


def stacked_queries(parts: Sequence[Query]) -> Query:
    rights = [part.right for part in parts if part.right is not None]
    return Query(torch.cat([part.left for part in parts]), torch.cat(rights) if rights else None)
