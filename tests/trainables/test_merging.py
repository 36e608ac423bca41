"""Averages of models: exact where they must be, and ranks that agree with truly trained mixtures."""

import copy
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shoal.policies.laws.merged import ranked, trust
from shoal.policies.mixers.effects import learn_effects
from shoal.policies.ranks import spearman
from shoal.trainables.merging import merge

GROUPS, SYMBOLS = 4, 12


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small models wait for one another's threads most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_an_average_by_hand() -> None:
    first = {
        "weight": torch.tensor([1.0, 2.0]),
        "steps": torch.tensor(7),
        "half": torch.tensor([1.0]).bfloat16(),
    }
    second = {
        "weight": torch.tensor([3.0, 6.0]),
        "steps": torch.tensor(9),
        "half": torch.tensor([2.0]).bfloat16(),
    }
    found = merge([first, second], [0.75, 0.25])
    assert found["weight"].tolist() == [1.5, 3.0] and found["steps"].item() == 7
    assert found["half"].dtype == torch.bfloat16 and found["half"].item() == 1.25
    turned = merge([second, first], [0.25, 0.75])
    assert torch.equal(turned["weight"], found["weight"])


def test_what_cannot_be_averaged_is_refused() -> None:
    state = {"weight": torch.zeros(2)}
    with pytest.raises(ValueError, match="sum to 1"):
        merge([state, state], [0.5, 0.4])
    with pytest.raises(ValueError, match="a weight for each state"):
        merge([state], [0.5, 0.5])
    with pytest.raises(ValueError, match="same names and shapes"):
        merge([state, {"weight": torch.zeros(3)}], [0.5, 0.5])


def test_regressions_on_one_design_average_to_the_union() -> None:
    rng = np.random.default_rng(0)
    design, labels = rng.normal(size=(30, 5)), rng.normal(size=(3, 30))

    def solution(rows: np.ndarray, targets: np.ndarray) -> dict[str, Tensor]:
        return {"weight": torch.from_numpy(np.linalg.lstsq(rows, targets, rcond=None)[0])}

    found = merge([solution(design, label) for label in labels], [1 / 3] * 3)["weight"]
    union = solution(np.vstack([design] * 3), labels.ravel())["weight"]
    assert torch.allclose(found, union, atol=1e-10)
    # other designs have other Hessians, and the average is biased
    others = [rng.normal(size=(30, 5)) * scale for scale in (0.3, 1.0, 3.0)]
    found = merge([solution(*pair) for pair in zip(others, labels, strict=True)], [1 / 3] * 3)["weight"]
    union = solution(np.vstack(others), labels.ravel())["weight"]
    assert not torch.allclose(found, union, atol=1e-3)


def chains(seed: int) -> list[np.ndarray]:
    """Return a transition matrix a group; groups 0 and 1 are near one another."""
    rng = np.random.default_rng(seed)
    found = [rng.dirichlet(np.full(SYMBOLS, 0.3), SYMBOLS) for _ in range(GROUPS)]
    found[1] = 0.7 * found[0] + 0.3 * found[1]
    return found


def pairs(chain: np.ndarray, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return symbols and what followed them."""
    first = rng.integers(SYMBOLS, size=count)
    after = (chain.cumsum(axis=1)[first] > rng.random((count, 1))).argmax(axis=1)
    return torch.from_numpy(first), torch.from_numpy(after)


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(SYMBOLS, 8), nn.Linear(8, 24), nn.Tanh(), nn.Linear(24, SYMBOLS))


def losses(model: nn.Module, rows: list[tuple[Tensor, Tensor]]) -> np.ndarray:
    with torch.no_grad():
        return np.array([nn.functional.cross_entropy(model(first), after).item() for first, after in rows])


def continued(
    start: nn.Module, mixture: np.ndarray, rows: list[tuple[Tensor, Tensor]], steps: int
) -> nn.Module:
    """Train a copy on the mixture-weighted loss of all groups, by whole batches: no noise of sampling."""
    model = copy.deepcopy(start)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = sum(
            float(share) * nn.functional.cross_entropy(model(first), after)
            for share, (first, after) in zip(mixture, rows, strict=True)
            if share
        )
        assert isinstance(loss, Tensor)
        loss.backward()
        optimiser.step()
    return model


def scored(
    start: nn.Module, mixtures: np.ndarray, rows: list, held_out: list, steps: int
) -> tuple[np.ndarray, ...]:
    """Return the losses (mixtures, groups) of merged and of truly trained models, and of the equal average."""
    pool = [continued(start, one, rows, steps).state_dict() for one in np.eye(GROUPS)]
    model, merged = copy.deepcopy(start), []
    for mixture in (*mixtures, np.full(GROUPS, 1 / GROUPS)):
        model.load_state_dict(merge(pool, mixture.tolist()))
        merged.append(losses(model, held_out))
    trained = [losses(continued(start, mixture, rows, steps), held_out) for mixture in mixtures]
    return np.array(merged[:-1]), np.array(trained), merged[-1]


def world() -> tuple[nn.Module, list, list]:
    rng = np.random.default_rng(1)
    rows = [pairs(chain, 400, rng) for chain in chains(0)]
    held_out = [pairs(chain, 400, rng) for chain in chains(0)]
    return continued(small_model(), np.full(GROUPS, 1 / GROUPS), rows, 60), rows, held_out


def test_merged_models_rank_mixtures_as_trained_ones_and_less_so_when_trained_long() -> None:
    start, rows, held_out = world()
    unions = [u for size in range(1, GROUPS + 1) for u in itertools.combinations(range(GROUPS), size)]
    mixtures = [np.isin(np.arange(GROUPS), union) / len(union) for union in unions]
    mixtures = np.array([*mixtures, *np.random.default_rng(2).dirichlet(np.ones(GROUPS), 5)])
    target = np.array([0.1, 0.6, 0.3, 0.0])  # what is cared for
    shifts = []
    for steps, some in ((20, mixtures), (150, mixtures[:6])):
        merged, trained, average = scored(start, some, rows, held_out, steps)
        found = trust(merged @ target, trained @ target, losses(start, held_out), average)
        shifts.append(found.shift)
        if steps == 20:
            assert len(some) == 20 and found.correlation > 0.9 and not found.barrier
            assert set(ranked(merged, target)[:5]) & set(ranked(trained, target)[:3])
    assert abs(shifts[1]) > 2 * abs(shifts[0])  # ranks are predicted, levels are not


def test_one_step_is_merged_exactly_and_is_what_probes_predict() -> None:
    start, rows, held_out = world()
    start = start.double()
    mixtures = np.random.default_rng(3).dirichlet(np.ones(GROUPS), 6)
    pool = [continued(start, one, rows, 1).state_dict() for one in np.eye(GROUPS)]
    for mixture in mixtures:
        trained = continued(start, mixture, rows, 1).state_dict()
        merged = merge(pool, mixture.tolist())
        assert all(torch.allclose(merged[name], trained[name], atol=1e-7) for name in trained)
    # A from the pool as one-hot probes of one step predicts the merged losses to first order
    before, model = losses(start, held_out), copy.deepcopy(start)
    merged_losses, _, _ = scored(start, mixtures, rows, held_out, 1)
    drops = []
    for state in pool:
        model.load_state_dict(state)
        drops.append(tuple(np.array([fell]) for fell in before - losses(model, held_out)))
    effects = learn_effects(np.eye(GROUPS), drops, 1, np.ones(GROUPS), 1)
    assert effects is not None
    predicted = before - mixtures @ effects.matrix.T
    fell = before - merged_losses
    assert np.abs(predicted - merged_losses).max() < 0.2 * np.abs(fell).max()
    assert spearman(predicted.ravel(), merged_losses.ravel()) > 0.99


def test_too_few_trained_mixtures_tell_no_correlation() -> None:
    found = trust(np.arange(3.0), np.arange(3.0), np.ones(2), np.full(2, 1.5))
    assert np.isnan(found.correlation) and found.barrier and found.shift == 0
