"""Choices among scikit-learn's digits: wrong labels, influence beside training again, subsets beside chance."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.parts.exact_influence import exact_influences, retrained, settle
from shoal.policies.selection.cuts import RandomRows, Top
from shoal.policies.selection.interface import Candidates, Selector, select_rows
from shoal.policies.selection.quantise import Quantise
from shoal.policies.selection.small_loss import SmallLoss
from shoal.policies.selection.tarot import Tarot
from shoal.trainables.influence.ekfac import fit_factors, influences, mean_query, solved_queries
from shoal.trainables.influence.likelihoods import Classes
from shoal.trainables.influence.traces import traced_layers

CLEAN = 200  # rows with labels that are known to be right
NOISE_EPOCHS = 15  # over the noisy rows, before their losses are taken
DECAY = 0.01  # weight of half the squared weights, where networks are trained to their minimum


class Digits(NamedTuple):
    train: tuple[Tensor, Tensor]
    clean: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def digits(seed: int) -> Digits:
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(seed).permutation(len(found.target))
    x = torch.tensor(found.data[order] / 16.0, dtype=torch.float32)
    y = torch.tensor(found.target[order])
    cuts = [len(x) - 500 - CLEAN, len(x) - 500, len(x)]
    return Digits(*((x[a:b], y[a:b]) for a, b in zip([0, *cuts], cuts, strict=False)))


def network(seed: int, hidden: int = 64) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def train(module: nn.Module, rows: tuple[Tensor, Tensor], steps: int, seed: int, batch: int = 64) -> nn.Module:
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=0.01)
    draws = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        some = torch.randint(len(rows[0]), (batch,), generator=draws)
        optimiser.zero_grad()
        functional.cross_entropy(module(rows[0][some]), rows[1][some]).backward()
        optimiser.step()
    return module


def accuracy(module: nn.Module, rows: tuple[Tensor, Tensor]) -> float:
    with torch.no_grad():
        return float((module(rows[0]).argmax(dim=1) == rows[1]).float().mean())


def auc(scores: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """Return the share of pairs in which the positive row has the larger score; ties count half."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, scores))


def noise(share: float, seed: int) -> dict[str, float]:
    """Plant wrong labels; say how well loss and influence find them, and what training without them gains."""
    data, rng = digits(seed), np.random.default_rng(seed)
    x, labels = data.train
    wrong = rng.random(len(labels)) < share
    shift = torch.from_numpy(rng.integers(1, 10, len(labels)))
    noisy = torch.where(torch.from_numpy(wrong), (labels + shift) % 10, labels)
    steps = NOISE_EPOCHS * len(x) // 64
    module, losses = network(seed), np.zeros(len(x))
    for each in range(3):  # losses are the mean over three moments of one training
        train(module, (x, noisy), steps // 3, 10 * seed + each)
        with torch.no_grad():
            losses += functional.cross_entropy(module(x), noisy, reduction="none").numpy() / 3
    found = influence_on(module, (x, noisy), data.clean, seed)
    pool = Candidates(np.arange(len(x)), {"loss": losses}, np.zeros(len(x), np.int64))
    kept = select_rows(SmallLoss(), pool).copies > 0

    def reached(rows: NDArray[np.bool_]) -> float:
        some = torch.from_numpy(rows)
        return accuracy(train(network(seed + 100), (x[some], noisy[some]), 600, seed), data.test)

    return {
        "small_loss_auc": auc(losses, wrong),
        "influence_auc": auc(-found, wrong),
        "accuracy_kept": reached(kept),
        "accuracy_influence": reached(found > 0),
        "accuracy_all": reached(np.ones(len(x), bool)),
        "accuracy_oracle": reached(~wrong),
        "kept_share": float(kept.mean()),
    }


def influence_on(
    module: nn.Module, rows: tuple[Tensor, Tensor], queries: tuple[Tensor, Tensor], seed: int
) -> NDArray[np.float64]:
    """Return the influence of each row on the queries' mean loss."""
    likelihood, layers = Classes(module), traced_layers(module)
    factors = fit_factors(likelihood, layers, [rows], torch.Generator().manual_seed(seed))
    query = mean_query(likelihood, layers, factors, [queries])
    return influences(likelihood, layers, query, rows)[:, 0].double().numpy()


def against_exact(seed: int, hidden: int, rows: int) -> dict[str, float]:
    """Compare influences with the exact matrix, and with training again without each of some rows.

    Digits of 4 x 4 pixels and a network of 16 inputs, without a layer within if `hidden` is 0: its loss is
    convex, and the matrix is the Hessian.
    """
    data = digits(seed)
    small = [(small_images(x[:400]), y[:400]) for x, y in (data.train, data.test)]
    pool, queries = small[0], (small[1][0][:100], small[1][1][:100])
    torch.manual_seed(seed)
    parts = [nn.Linear(16, hidden), nn.Tanh(), nn.Linear(hidden, 10)] if hidden else [nn.Linear(16, 10)]
    module = nn.Sequential(*parts).double()
    settle(module, pool, DECAY, 2000)
    likelihood, layers = Classes(module), traced_layers(module)
    factors = fit_factors(likelihood, layers, [pool], torch.Generator().manual_seed(seed), passes=10)
    found = influences(
        likelihood, layers, solved_queries(likelihood, layers, factors, [queries], damping=DECAY), pool
    )
    exact = exact_influences(module, pool, queries, DECAY)

    def judge() -> Tensor:
        with torch.no_grad():
            return functional.cross_entropy(module(queries[0]), queries[1], reduction="none")

    again = retrained(module, pool, judge, DECAY, list(range(rows)), rounds=100)
    return {
        "exact": correlation(found, exact),
        "retraining": correlation(found[:rows], again),
        "retraining_of_means": correlation(found[:rows].mean(dim=1), again.mean(dim=1)),
        "exact_to_retraining": correlation(exact[:rows], again),
    }


def small_images(x: Tensor) -> Tensor:
    return x.double().view(-1, 4, 2, 4, 2).mean(dim=(2, 4)).reshape(len(x), 16)


def correlation(first: Tensor, second: Tensor) -> float:
    return float(np.corrcoef(first.flatten(), second.flatten())[0, 1])


def subsets(seed: int, rows: int = 100) -> dict[str, dict[str, float]]:
    """Return the accuracy after training on as many rows by each policy, for all digits and for two of them."""
    data = digits(seed)
    x, labels = data.train
    first = train(network(seed), data.clean, 200, seed)  # what embeds and scores: a network trained on few rows
    with torch.no_grad():
        hidden = first[1](first[0](x)).double().numpy()
        loss = functional.cross_entropy(first(x), labels, reduction="none").double().numpy()
    zeros = np.zeros(len(x), np.int64)
    pool = Candidates(np.arange(len(x)), {"embedding": hidden, "score": loss}, zeros, {}, rows, seed)

    def reached(policy: Selector, given: Candidates, test: tuple[Tensor, Tensor]) -> float:
        chosen = torch.from_numpy(select_rows(policy, given).copies > 0)
        return accuracy(train(network(seed + 100), (x[chosen], labels[chosen]), 400, seed), test)

    found = {
        "quantise": {
            "quantise": reached(Quantise(), pool, data.test),
            "random": reached(RandomRows(), pool, data.test),
            "top": reached(Top(), pool, data.test),
        }
    }
    found["tarot"] = targeted(seed, first, data, reached)
    return found


def targeted(
    seed: int, first: nn.Module, data: Digits, reached: Callable[[Selector, Candidates, Any], float]
) -> dict[str, float]:
    """Aim at two digits that are mistaken for one another: 3 and 8."""
    x, labels = data.train
    wanted = [
        (rows[torch.isin(y, torch.tensor([3, 8]))], y[torch.isin(y, torch.tensor([3, 8]))])
        for rows, y in data[1:]
    ]
    sketch, aimed = (last_gradients(first, *rows) for rows in ((x, labels), wanted[0]))
    mean = aimed.mean(axis=0)
    unit = sketch / np.linalg.norm(sketch, axis=1, keepdims=True).clip(1e-12)
    columns = {"sketch": sketch, "score": unit @ mean}
    pool = Candidates(np.arange(len(x)), columns, np.zeros(len(x), np.int64), {"sketch": aimed}, 60, seed)
    estimated = select_rows(Tarot(folds=5, depth=20), pool._replace(budget=None)).copies > 0
    return {
        "tarot": reached(Tarot(folds=5, depth=60), pool, wanted[1]),
        "random": reached(RandomRows(), pool, wanted[1]),
        "top": reached(Top(), pool, wanted[1]),
        "estimated_share": float(estimated.mean()),
        "estimated_precision": float(np.isin(labels.numpy()[estimated], [3, 8]).mean()),
    }


def last_gradients(module: nn.Module, inputs: Tensor, labels: Tensor) -> NDArray[np.float64]:
    """Return each row's gradient of the last layer, projected to 64 numbers by random signs."""
    with torch.no_grad():
        hidden = module[1](module[0](inputs))  # type: ignore[index]
        slopes = module(inputs).softmax(dim=1) - functional.one_hot(labels, 10)
        flat = (slopes[:, :, None] * hidden[:, None, :]).flatten(1).double().numpy()
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (flat.shape[1], 64))
    return flat @ signs / 8.0
