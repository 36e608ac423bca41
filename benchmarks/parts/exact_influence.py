"""Influence without EK-FAC: by the whole Gauss-Newton matrix, and by training again without each row."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, vector_to_parameters


def row_gradients(module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of each row's cross-entropy, `(rows, weights)`."""
    weights = dict(module.named_parameters())

    def loss(values: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(torch.func.functional_call(module, values, (x[None],)), y[None])

    found = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(weights, inputs, labels)
    return torch.cat([each.flatten(1) for each in found.values()], dim=1)


def gauss_newton(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return the Gauss-Newton matrix of a classifier, the mean over rows."""
    weights = dict(module.named_parameters())

    def logits(values: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(module, values, (x[None],))[0]

    jacobians = torch.func.vmap(torch.func.jacrev(logits), (None, 0))(weights, inputs)
    slopes = torch.cat([each.flatten(2) for each in jacobians.values()], dim=2)  # (rows, classes, weights)
    chances = module(inputs).detach().softmax(dim=1)
    inner = torch.diag_embed(chances) - chances[:, :, None] * chances[:, None, :]
    return torch.einsum("nci,ncd,ndj->ij", slopes, inner, slopes) / len(inputs)


def exact_influences(
    module: nn.Module, train: tuple[Tensor, Tensor], queries: tuple[Tensor, Tensor], damping: float
) -> Tensor:
    """Return what `ekfac.influences` approximates, `(rows, queries)`."""
    matrix = gauss_newton(module, train[0])
    damped = matrix + damping * torch.eye(len(matrix), dtype=matrix.dtype)
    return (
        row_gradients(module, *train) @ torch.linalg.solve(damped, row_gradients(module, *queries).T)
    ).detach()


def settle(module: nn.Module, train: tuple[Tensor, Tensor], decay: float, rounds: int = 200) -> float:
    """Train to the minimum of the mean loss plus `decay / 2` times the squared weights.

    Returns the length of the last gradient.
    """
    weights = list(module.parameters())
    optimiser = torch.optim.LBFGS(
        weights, max_iter=rounds, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        size = sum(weight.square().sum() for weight in weights)
        found = functional.cross_entropy(module(train[0]), train[1]) + decay / 2 * size
        found.backward()
        return found

    optimiser.step(loss)
    return float(parameters_to_vector([weight.grad for weight in weights if weight.grad is not None]).norm())


def retrained(
    module: nn.Module,
    train: tuple[Tensor, Tensor],
    judge: Callable[[], Tensor],
    decay: float,
    rows: list[int],
    rounds: int = 200,
) -> Tensor:
    """Return by how much `judge` rises when each of these rows is left out, `(rows, ...)`.

    Training goes on from the trained weights, so that no other minimum is found.
    """
    start = parameters_to_vector(module.parameters()).detach().clone()
    before, found = judge(), []
    for row in rows:
        rest = torch.arange(len(train[0])) != row
        settle(module, (train[0][rest], train[1][rest]), decay * len(train[0]) / int(rest.sum()), rounds)
        found.append(judge() - before)
        # the weights become views of the vector that they are given
        vector_to_parameters(start.clone(), module.parameters())
    return torch.stack(found)
