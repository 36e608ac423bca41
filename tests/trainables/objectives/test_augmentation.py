"""Rows are changed by draws of their own, whatever stands beside them."""

import kornia
import pytest
import torch
from torch.func import vmap

from shoal.trainables.augmentation import augment, changed_rows, coloured, turned
from shoal.trainables.classifier_settings import AUGMENTED
from shoal.trainables.row_draws import normal_of, row_keys, uniform_of

NOTHING = dict.fromkeys(AUGMENTED, 0.0)
ALL = {
    "drop": 0.2,
    "noise": 0.3,
    "shift": 0.3,
    "flip": 0.5,
    "rotate": 30.0,
    "zoom": 0.2,
    "brightness": 0.3,
    "saturation": 0.5,
}
IMAGES = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def at_step(images: torch.Tensor, step: int) -> torch.Tensor:
    """Return images as a member changes them whose random state at this step is so."""
    torch.manual_seed(step)
    return changed_rows(images, torch.zeros(3, 1, 1), torch.ones(3, 1, 1), ALL)


def test_a_row_is_changed_alike_in_any_batch_and_order() -> None:
    whole, order = at_step(IMAGES, 1), torch.randperm(12)
    assert torch.equal(at_step(IMAGES[order], 1), whole[order])
    assert torch.allclose(at_step(IMAGES[3:5], 1), whole[3:5], atol=1e-6)


def test_rows_and_steps_differ() -> None:
    first, second = at_step(IMAGES, 1), at_step(IMAGES, 2)
    assert not torch.allclose(first, second) and not torch.allclose(first, IMAGES)
    keys = row_keys(torch.randn(500, 7))
    assert keys.unique().numel() == 500


def test_draws_are_uniform_and_normal_and_streams_are_apart() -> None:
    keys = row_keys(torch.randn(4000, 3))
    draws, other = uniform_of(keys, 0, 5), uniform_of(keys, 1, 5)
    assert draws.min() >= 0 and draws.max() < 1
    assert draws.mean().item() == pytest.approx(0.5, abs=0.01) and draws.var().item() == pytest.approx(
        1 / 12, rel=0.05
    )
    assert torch.corrcoef(torch.cat([draws, other], dim=1).T).fill_diagonal_(0).abs().max() < 0.08
    bell = normal_of(keys, 2, 5)
    assert bell.mean().abs() < 0.03 and bell.std().item() == pytest.approx(1, abs=0.03)
    assert bell.pow(4).mean().item() == pytest.approx(3, abs=0.3)


def test_members_of_a_stack_draw_apart_and_as_one_by_one_in_kind() -> None:
    stack = IMAGES.view(3, 4, 3, 8, 8)
    numbers = {name: torch.full((3,), value) for name, value in ALL.items()}
    centre, spread = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    found = vmap(lambda x, told: changed_rows(x, centre, spread, told), randomness="different")(stack, numbers)
    assert found.shape == stack.shape and not torch.allclose(found, stack)
    same = stack[:1].expand(3, -1, -1, -1, -1)
    apart = vmap(lambda x, told: changed_rows(x, centre, spread, told), randomness="different")(same, numbers)
    assert not torch.allclose(apart[0], apart[1])


def test_a_quarter_turn_by_hand() -> None:
    image = torch.arange(9.0).view(1, 1, 3, 3)
    found = turned(image, torch.tensor([90.0]), torch.tensor([1.0]))
    assert torch.allclose(found, image.rot90(1, (2, 3)), atol=1e-4)
    half = turned(torch.ones(1, 1, 5, 5), torch.tensor([0.0]), torch.tensor([0.6]))
    assert half[0, 0, 2, 2] == 1 and half[0, 0, 0, 0] == 0  # what comes in is 0


def test_colours_are_kornias() -> None:
    keys = row_keys(IMAGES)
    told = NOTHING | {"brightness": 0.3, "saturation": 0.5}
    draws = 2 * uniform_of(keys, 8, 2) - 1
    lit = kornia.enhance.adjust_brightness(IMAGES, 0.3 * draws[:, 0])
    expected = kornia.enhance.adjust_saturation(lit, 1 + 0.5 * draws[:, 1])
    assert torch.equal(coloured(IMAGES, told, keys), expected)
    grey = IMAGES[:, :1]
    assert torch.equal(coloured(grey, NOTHING | {"saturation": 0.5}, keys), grey)


def test_shares_are_those_asked_for() -> None:
    rows = torch.ones(2000, 10) + torch.arange(2000.0)[:, None]
    dropped = augment(rows, NOTHING | {"drop": 0.25}, row_keys(rows))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    noisy = augment(rows, NOTHING | {"noise": 0.5}, row_keys(rows)) - rows
    assert noisy.std().item() == pytest.approx(0.5, abs=0.02)
