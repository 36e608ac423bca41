"""Densities of layers: tables worked out before, exact counts, and counts that only grow."""

import math

import pytest

from shoal.trainables.recipes.densities import DENSITY_RULES, kept_counts, layer_densities

BLOCK = {"project": (384, 128), "output": (128, 128), "rise": (512, 128), "fall": (128, 512)}
SPLIT = {"q": (128, 128), "k": (128, 128), "v": (128, 128)} | {n: BLOCK[n] for n in ("output", "rise", "fall")}
PERCEPTRON = {"first": (64, 784), "last": (10, 64)}


@pytest.mark.parametrize(
    ("density", "expected"),
    [
        (0.05, (0.05, 0.075, 0.0469, 0.0469)),
        (0.2, (0.2, 0.3, 0.1875, 0.1875)),
        (0.5, (0.5, 0.75, 0.4688, 0.4688)),
        (0.8, (0.819, 1.0, 0.768, 0.768)),
    ],
)
def test_erk_of_a_decoders_block(density, expected) -> None:
    assert tuple(layer_densities(BLOCK, density, "erk").values()) == pytest.approx(
        expected, abs=5e-5 + 5e-4 * (density > 0.7)
    )


def test_erk_of_a_perceptron_and_of_matrices_apart() -> None:
    assert tuple(layer_densities(PERCEPTRON, 0.05, "erk").values()) == pytest.approx((0.0466, 0.3186), abs=5e-5)
    assert tuple(layer_densities(PERCEPTRON, 0.2, "erk").values()) == pytest.approx((0.1898, 1.0), abs=5e-5)
    apart = layer_densities(SPLIT, 0.2, "erk")
    assert [round(apart[name], 4) for name in ("q", "k", "v", "rise", "fall")] == [0.2667] * 3 + [0.1667] * 2


def test_erk_plus_takes_the_whole_last_layer_off_first_and_refuses_where_it_is_too_large() -> None:
    found = layer_densities(BLOCK, 0.5, "erk_plus")
    kept = sum(found[name] * math.prod(BLOCK[name]) for name in BLOCK)
    assert found["fall"] == 1.0 and kept == pytest.approx(0.5 * sum(map(math.prod, BLOCK.values())))
    with pytest.raises(ValueError, match=r"density must be at least 0\.3333 with densities: erk_plus"):
        layer_densities(BLOCK, 0.3, "erk_plus")


@pytest.mark.parametrize("rule", DENSITY_RULES)
@pytest.mark.parametrize(
    "sizes", [BLOCK, SPLIT, PERCEPTRON, {"a": (3, 5), "b": (7, 2), "c": (3, 5), "d": (1, 9)}]
)
def test_counts_are_exact_and_a_denser_layer_has_all_of_a_sparser_one(rule, sizes) -> None:
    total = sum(map(math.prod, sizes.values()))
    last = math.prod(list(sizes.values())[-1])
    least = last / total if rule == "erk_plus" else 0.0
    before = dict.fromkeys(sizes, 0)
    for place in range(1, 102):
        density = least + (1 - least) * place / 101
        found = kept_counts(sizes, density, rule)
        assert sum(found.values()) == round(density * total)
        assert all(before[name] <= found[name] <= math.prod(sizes[name]) for name in sizes)
        before = found
    assert before == {name: math.prod(size) for name, size in sizes.items()}
