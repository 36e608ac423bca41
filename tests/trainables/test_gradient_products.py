import pytest
import torch
from torch import nn

from shoal.trainables.gradient_products import gradients, inner_products, weighted


def test_inner_products_by_hand() -> None:
    # losses 1/2 h (x - c)^2 with Hessians h: gradients h (x - c) at x = 0, in two blocks of one weight each
    x, y = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    losses = [(2 * (x - 1) ** 2 / 2 + (y - 3) ** 2 / 2).sum(), (4 * (x + 1) ** 2 / 2).sum()]
    found = gradients(losses, [x, y])
    # (-2, -3) and (4, 0): the second does not depend on y
    assert inner_products(found, found).tolist() == [[13.0, -8.0], [-8.0, 16.0]]
    assert [part.item() for part in weighted(found, [0.5, 0.25])] == [0.0, -1.5]


def test_blocks_give_what_one_flat_matrix_gives() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    rows, targets = torch.randn(12, 5), torch.randn(12, 3)
    each = ((model(rows) - targets) ** 2).mean(dim=1)
    losses = [each[:4].mean(), each[4:8].mean(), each[8:].mean()]
    parameters = list(model.parameters())
    found = gradients(losses, parameters)
    flat = torch.stack([torch.cat([part.flatten() for part in gradient]) for gradient in found]).double()
    assert torch.allclose(inner_products(found, found[:2]), flat @ flat[:2].T, rtol=1e-6)
    # the gradient of all groups at once is the weighted one
    whole = torch.autograd.grad(((model(rows) - targets) ** 2).mean(), parameters)
    for ours, theirs in zip(weighted(found, [1 / 3] * 3), whole, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_no_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="weight above 0"):
        weighted([(torch.zeros(1),)], [0.0])
