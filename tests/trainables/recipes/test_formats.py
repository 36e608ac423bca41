"""Formats of few bits: all their elements, hand-worked blocks, and roundings without bias."""

import math

import pytest
import torch

from shoal.trainables.recipes import formats
from shoal.trainables.recipes.formats import (
    E2M1,
    E2M3,
    E3M2,
    E4M3,
    E5M2,
    Format,
    in_blocks,
    scales,
    to_elements,
)
from shoal.trainables.recipes.formats import whole_numbers as whole

# format -> exponent bits, mantissa bits, largest code that is a number
CODES = {E2M1: (2, 1, 7), E2M3: (2, 3, 31), E3M2: (3, 2, 31), E4M3: (4, 3, 126), E5M2: (5, 2, 123)}


def elements(exponent: int, mantissa: int, most: int) -> list[float]:
    """Return all elements from 0 on, by the meaning of their codes."""
    bias = 2 ** (exponent - 1) - 1
    found = []
    for code in range(most + 1):
        high, low = divmod(code, 2**mantissa)
        fraction = low / 2**mantissa
        found.append(2.0 ** (1 - bias) * fraction if high == 0 else 2.0 ** (high - bias) * (1 + fraction))
    return found


@pytest.mark.parametrize("chosen", CODES)
def test_every_element_is_itself_and_what_lies_between_goes_to_the_nearest_and_even(chosen: Format) -> None:
    known = torch.tensor(elements(*CODES[chosen]))
    assert known[-1] == chosen.largest
    assert torch.equal(to_elements(known, chosen), known) and torch.equal(to_elements(-known, chosen), -known)
    middle = (known[1:] + known[:-1]) / 2
    even = torch.where(torch.arange(len(middle)) % 2 == 0, known[:-1], known[1:])
    assert torch.equal(to_elements(middle, chosen), even), "a tie goes to the even code"
    assert torch.equal(to_elements(torch.nextafter(middle, known[1:]), chosen), known[1:])
    assert torch.equal(to_elements(torch.nextafter(middle, known[:-1]), chosen), known[:-1])
    assert to_elements(torch.tensor([1e9, -1e9]), chosen).tolist() == [chosen.largest, -chosen.largest]


def test_the_elements_of_int8_are_multiples_of_a_64th() -> None:
    known = torch.arange(-127, 128) / 64
    assert torch.equal(to_elements(known, whole(8)), known) and whole(8).largest == 1.984375
    assert to_elements(torch.tensor([3.0, 0.5 / 64, 1.5 / 64]), whole(8)).tolist() == [1.984375, 0.0, 2 / 64]


def test_e4m3_is_torchs_own_within_its_range() -> None:
    x = torch.randn(10000, generator=torch.Generator().manual_seed(0)) * 40
    assert torch.equal(to_elements(x, E4M3), x.clamp(-448, 448).to(torch.float8_e4m3fn).float())
    y = x * 1000
    assert torch.equal(to_elements(y, E5M2), y.clamp(-57344, 57344).to(torch.float8_e5m2).float())
    assert torch.equal(to_elements(x, formats.BFLOAT16), x.bfloat16().float())


def test_a_block_of_four_by_hand() -> None:
    # OCP: floor(log2 7.9) - 2 = 0, so 7.9 is cut off at 6. Up: 2 is the least power of two with 6 * 2 >= 7.9
    block = torch.tensor([[0.1, -0.7, 3.3, 7.9]])
    assert in_blocks(block, E2M1, up=False).tolist() == [[0, -0.5, 3, 6]]
    assert in_blocks(block, E2M1).tolist() == [[0, -1, 3, 8]]


def test_scales_are_exact_just_below_and_at_powers_of_two() -> None:
    exponents = torch.arange(-100, 100)
    most = torch.ldexp(torch.full((200,), 6.0), exponents)
    expected = torch.ldexp(torch.ones(200), exponents)
    assert torch.equal(scales(most, E2M1), expected)
    assert torch.equal(scales(torch.nextafter(most, torch.tensor(math.inf)), E2M1), 2 * expected)
    below = torch.nextafter(torch.ldexp(torch.ones(200), exponents), torch.tensor(0.0))
    assert torch.equal(formats.exponents(below), (exponents - 1).float())
    assert scales(torch.tensor([0.0]), E2M1).tolist() == [1.0]


def test_roundings_keep_scale_idempotence_and_odd_lengths() -> None:
    x = torch.randn(8, 40, generator=torch.Generator().manual_seed(1))
    for chosen in (E2M1, E2M3, E4M3, whole(8)):
        once = in_blocks(x, chosen)
        assert torch.equal(in_blocks(once, chosen), once)
        assert torch.equal(in_blocks(x * 2.0**20, chosen), once * 2.0**20)
        assert torch.equal(once[:, 32:], in_blocks(x[:, 32:], chosen)), "8 numbers are a block of their own"
        assert in_blocks(torch.zeros(1, 5), chosen).abs().sum() == 0


@pytest.mark.parametrize(
    ("chosen", "up", "error"),
    [
        (E2M1, False, 0.115),
        (E4M3, True, 0.0265),
        (E2M3, True, 0.0283),
        (whole(8), True, 0.0083),
        (E5M2, True, 0.053),
    ],
)
def test_errors_on_normal_numbers_are_those_worked_out_before(chosen, up, error) -> None:
    x = torch.randn(4000, 32, generator=torch.Generator().manual_seed(0))
    found = (in_blocks(x, chosen, up=up) - x).square().mean().sqrt() / x.square().mean().sqrt()
    assert found == pytest.approx(error, rel=0.02)


def test_stochastic_rounding_has_the_number_as_its_mean_within_four_deviations() -> None:
    draws, torch_seed = 10000, torch.Generator().manual_seed(3)
    grid = torch.linspace(-5.9, 5.9, 64).repeat(draws, 1)
    found = to_elements(grid, E2M1, torch.rand(grid.shape, generator=torch_seed)).double()
    error = (found.mean(dim=0) - grid[0].double()).abs()
    assert (error <= 4 * found.std(dim=0) / draws**0.5 + 1e-9).all()
