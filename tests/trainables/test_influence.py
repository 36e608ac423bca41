"""Influence by EK-FAC: by hand, beside the exact matrix, and beside training again without a row."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmarks.parts.exact_influence import exact_influences, retrained, row_gradients, settle
from shoal.trainables.decoder import Decoder, initialise
from shoal.trainables.influence.ekfac import (
    LayerFactors,
    fit_factors,
    influences,
    mean_query,
    solved_queries,
)
from shoal.trainables.influence.likelihoods import Classes, Gaussian, NextTokens
from shoal.trainables.influence.traces import traced_layers, traces
from shoal.trainables.settings import DecoderShape


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Signs(Gaussian):
    """Labels that lie 1 above or below the mean in turn stand in for normal draws."""

    def sampled(self, rows, draws):
        mean = self.module(rows[0])
        noise = 1.0 - 2.0 * (torch.arange(len(mean)) % 2)[:, None]
        return 0.5 * (mean - mean.detach() - noise).square().sum(dim=1)


def test_one_weight_by_hand() -> None:
    # f = w x with w = 1; rows x = 1, 2 with labels 3, 1: slopes f - y = -2, 1, gradients -2 and 2
    # drawn labels lie 1 away, so the mean square of gradients is (1 + 4) / 2 = 2.5, and a tenth is added
    # the query x = 2, y = 6 has the gradient (2 - 6) 2 = -8
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    rows = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [1.0]])
    query = torch.tensor([[2.0]]), torch.tensor([[6.0]])
    likelihood, layers = Signs(module), traced_layers(module)
    factors = fit_factors(likelihood, layers, [rows], draws())
    queries = solved_queries(likelihood, layers, factors, [query])
    found = influences(likelihood, layers, queries, rows)
    assert found.flatten().tolist() == pytest.approx([-8 * -2 / 2.75, -8 * 2 / 2.75])
    # the row of label 3 helps: with it w grows, as the query wants


def blobs(rows: int, seed: int, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    centres = 1.5 * np.random.default_rng(9).normal(size=(classes, 5))
    return torch.from_numpy(centres[labels] + rng.normal(size=(rows, 5))), torch.from_numpy(labels)


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(np.corrcoef(first.flatten(), second.flatten())[0, 1])


@pytest.mark.parametrize("hidden, least", [(0, 0.9), (4, 0.75)])
def test_it_is_near_the_exact_influence_and_near_training_again(hidden: int, least: float) -> None:
    torch.manual_seed(0)
    parts = [nn.Linear(5, hidden), nn.Tanh(), nn.Linear(hidden, 3)] if hidden else [nn.Linear(5, 3)]
    module, decay = nn.Sequential(*parts).double(), 0.03
    train, queries = blobs(150, 1), blobs(30, 2)
    assert settle(module, train, decay) < 1e-5
    likelihood, layers = Classes(module), traced_layers(module)
    factors = fit_factors(likelihood, layers, [train], draws(), passes=20)
    solved = solved_queries(likelihood, layers, factors, [queries], damping=decay)
    found = influences(likelihood, layers, solved, train)
    assert correlation(found, exact_influences(module, train, queries, decay)) > least

    def judge() -> torch.Tensor:
        with torch.no_grad():
            return functional.cross_entropy(module(queries[0]), queries[1], reduction="none")

    rows = list(range(25))
    again = retrained(module, train, judge, decay, rows, rounds=60)
    assert correlation(found[rows], again) > 0.6
    # the plain product of gradients is no such thing in a net with a layer within
    assert correlation(found[rows], again) > correlation(
        (row_gradients(module, *train)[rows] @ row_gradients(module, *queries).T).detach(), again
    )


def test_the_measured_diagonal_lies_nearer_than_that_of_the_factors_alone() -> None:
    """Where inputs and slopes depend on one another (George et al., 2018)."""
    torch.manual_seed(1)
    module = nn.Linear(4, 3).double()
    inputs = torch.randn(2000, 4, dtype=torch.float64)
    inputs[:1000] *= 3
    rows = inputs, torch.zeros(2000, dtype=torch.long)
    likelihood, layers = Classes(module), traced_layers(module)
    (factor,) = fit_factors(likelihood, layers, [rows], draws(), passes=5).values()
    trace, _ = traces(layers, lambda: likelihood.sampled(rows, draws(5)))
    gradients = trace[""].gradients().flatten(1)
    exact = gradients.T @ gradients / len(gradients)
    turn = torch.kron(factor.outputs, factor.inputs)

    def away(diagonal: torch.Tensor) -> float:
        return float((turn @ torch.diag(diagonal.flatten()) @ turn.T - exact).norm())

    flat = [part.flatten(0, 1) for part in trace[""]]
    widths = [
        torch.diag(basis.T @ (part.T @ part / len(part)) @ basis)
        for part, basis in zip(flat, (factor.inputs, factor.outputs), strict=True)
    ]
    assert away(factor.curvature) < 0.8 * away(torch.outer(widths[1], widths[0]))


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    found = Decoder(DecoderShape(vocabulary=17, sequence_length=8, layers=2, heads=2, width=8))
    initialise(found, draws())
    with torch.no_grad():
        found.embedding.weight.mul_(20)
    return found.eval()


TOKENS = torch.from_numpy(np.random.default_rng(0).integers(0, 17, (12, 8)))


def test_a_decoder_has_the_products_of_its_weights_gradients(decoder) -> None:
    likelihood, layers = NextTokens(decoder), traced_layers(decoder)
    assert len(layers) == 8
    eye = {
        name: LayerFactors(
            torch.eye(part.in_features), torch.eye(part.out_features), torch.zeros(part.weight.shape)
        )
        for name, part in layers.items()
    }
    queries = solved_queries(likelihood, layers, eye, [TOKENS[:3]], damping=1.0)
    found = influences(likelihood, layers, queries, TOKENS)
    wanted = torch.stack([gradient_of(decoder, row) for row in TOKENS])
    assert torch.allclose(found, wanted @ wanted[:3].T, rtol=1e-3, atol=1e-3)
    joined = influences(
        likelihood, layers, mean_query(likelihood, layers, eye, [TOKENS[:2], TOKENS[2:3]], 1.0), TOKENS
    )
    assert torch.allclose(joined[:, 0], found.mean(dim=1), rtol=1e-3, atol=1e-3)


def gradient_of(decoder: Decoder, row: torch.Tensor) -> torch.Tensor:
    decoder.zero_grad()
    NextTokens(decoder).losses(row[None]).sum().backward()
    parts = [part.weight.grad.flatten() for part in traced_layers(decoder).values()]
    return torch.cat(parts)


def test_neither_batches_nor_frozen_weights_change_it_and_a_full_rank_is_no_cut(decoder) -> None:
    likelihood, layers = NextTokens(decoder), traced_layers(decoder, ["*.rise", "*.fall"])
    assert len(layers) == 4
    factors = fit_factors(likelihood, layers, [TOKENS], draws())
    whole = influences(likelihood, layers, solved_queries(likelihood, layers, factors, [TOKENS[:2]]), TOKENS)
    decoder.requires_grad_(False)
    try:
        parts = solved_queries(likelihood, layers, factors, [TOKENS[:1], TOKENS[1:2]], rank=7)
        found = torch.cat([influences(likelihood, layers, parts, rows) for rows in TOKENS.split(5)])
    finally:
        decoder.requires_grad_(True)
    # the last of eight singular vectors is missing
    assert correlation(found, whole) > 0.99
    full = solved_queries(likelihood, layers, factors, [TOKENS[:2]], rank=8)
    assert torch.equal(influences(likelihood, layers, full, TOKENS), whole)
    assert all(not part._forward_hooks for part in layers.values())


def test_layers_that_are_not_there(decoder) -> None:
    with pytest.raises(ValueError, match=r"layers must name linear layers, such as blocks.0.attention.project"):
        traced_layers(decoder, ["mlp.*"])
