import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.policies.explore import Perturb, Resample, explore
from shoal.policies.rules import EXPLORES
from shoal.policies.space import Bool, Categorical, Constant, Domain, Float, Int, Ordered, sample_space

DOMAINS: dict[str, Domain] = {
    "float": Float(0.0, 1.0),
    "log_float": Float(1e-5, 1e-1, log=True),
    "int": Int(1, 9),
    "log_int": Int(1, 1024, log=True),
    "ordered": Ordered((16, 32, 64, 128)),
    "categorical": Categorical(("relu", "gelu", None)),
    "bool": Bool(),
    "constant": Constant(7),
}


def vary(rule, hyperparameters: dict, rng: np.random.Generator, space: dict | None = None) -> dict:
    return explore(rule, space or {"x": Float(0, 1)}, hyperparameters, hyperparameters, rng)


@pytest.mark.parametrize("rule", EXPLORES)
@pytest.mark.parametrize("name", DOMAINS)
def test_no_rule_ever_leaves_the_domain(name: str, rule: str) -> None:
    domain, rng = DOMAINS[name], np.random.default_rng(1)
    value = domain.sample(rng)
    for _ in range(3000):
        value = vary(EXPLORES[rule](), {name: value}, rng, {name: domain})[name]
        assert domain.contains(value)


@pytest.mark.parametrize("name", DOMAINS)
def test_the_same_generator_gives_the_same_values(name: str) -> None:
    first, second = (
        [DOMAINS[name].sample(rng) for _ in range(20)]
        for rng in (np.random.default_rng(5), np.random.default_rng(5))
    )
    assert first == second


@given(st.integers(1, 50), st.sampled_from([0.8, 1.25]))
def test_an_integer_always_moves_unless_a_bound_stops_it(value: int, factor: float) -> None:
    moved = Int(1, 50).perturb(value, factor, np.random.default_rng(0))
    # by hand: round(1 * 1.25) = 1 and round(2 * 0.8) = 2 would both stay where they are for ever
    assert moved != value or value in (1, 50)
    assert (moved > value) == (factor > 1) or moved == value


def test_integers_by_hand() -> None:
    rng, domain = np.random.default_rng(0), Int(1, 100)
    assert [domain.perturb(value, 1.25, rng) for value in (1, 2, 10, 99)] == [2, 3, 12, 100]
    assert [domain.perturb(value, 0.8, rng) for value in (1, 2, 10, 99)] == [1, 1, 8, 79]


def test_ordered_goes_to_a_neighbour_and_stops_at_the_ends() -> None:
    rng, domain = np.random.default_rng(0), Ordered(("a", "b", "c"))
    assert [domain.perturb(value, 1.25, rng) for value in "abc"] == ["b", "c", "c"]
    assert [domain.perturb(value, 0.8, rng) for value in "abc"] == ["a", "a", "b"]


def test_a_float_is_multiplied_and_clipped() -> None:
    rng, domain = np.random.default_rng(0), Float(0.1, 1.0)
    assert domain.perturb(0.5, 1.25, rng) == 0.625
    assert domain.perturb(0.9, 1.25, rng) == 1.0
    assert domain.perturb(0.11, 0.8, rng) == 0.1


def test_perturbing_what_may_be_negative_by_hand() -> None:
    rng, wide = np.random.default_rng(0), Float(-4.0, 4.0)
    # even steps below 0.4: up is 0.4 sinh(asinh(x / 0.4) + ln 1.25); at 0 that is 0.4 (1.25 - 0.8) / 2 = 0.09
    assert wide.perturb(0.0, 1.25, rng) == pytest.approx(0.09)
    assert wide.perturb(0.0, 0.8, rng) == pytest.approx(-0.09)
    # far from 0 a product, or its inverse: 2 * 1.25 and -2 / 1.25, by a hundredth of their sizes
    assert wide.perturb(2.0, 1.25, rng) == pytest.approx(2.5, abs=0.025)
    assert wide.perturb(-2.0, 1.25, rng) == pytest.approx(-1.6, abs=0.025)
    assert wide.perturb(-3.9, 0.8, rng) == -4.0 and wide.perturb(3.9, 1.25, rng) == 4.0
    assert [Int(-40, 40).perturb(value, 1.25, rng) for value in (-20, 0, 20)] == [-16, 1, 25]
    assert [Int(-40, 40).perturb(value, 0.8, rng) for value in (-20, 0, 20)] == [-25, -1, 16]
    assert [Int(-3, 3).perturb(value, 1.25, rng) for value in (-3, -1, 1, 3)] == [-2, 0, 2, 3]
    # a domain that begins at 0 is multiplied, and 0 stays
    assert [Float(0.0, 1.0).perturb(value, 1.25, rng) for value in (0.0, 0.4)] == [0.0, 0.5]


@given(st.floats(-4, 4), st.sampled_from([0.5, 0.8, 1.25, 2.0]), st.sampled_from([-1e-9, -0.1, -4.0, -400.0]))
def test_a_factor_above_one_goes_up_and_its_inverse_back(value: float, factor: float, low: float) -> None:
    rng, wide, whole = np.random.default_rng(0), Float(low, 400.0), Int(-5, 5)
    value = max(value, low)
    moved = wide.perturb(value, factor, rng)
    assert (moved > value) == (factor > 1) or moved == low == value
    if moved > low:
        assert wide.perturb(moved, 1 / factor, rng) == pytest.approx(value, abs=1e-9)
    count = round(value)
    assert (whole.perturb(count, factor, rng) > count) == (factor > 1)


@pytest.mark.parametrize("domain", [Float(-1.0, 1.0), Float(-3.0, 1.0), Int(-50, 50)])
def test_perturbing_alone_comes_to_both_signs(domain: Domain) -> None:
    rng, value, seen = np.random.default_rng(1), domain.high, []
    for _ in range(2000):
        value = vary(Perturb(resample=0.0), {"x": value}, rng, {"x": domain})["x"]
        seen.append(value)
    assert 0.2 < np.mean(np.array(seen) > 0) < 0.8


def test_reciprocal_factors_do_not_drift_and_the_papers_do() -> None:
    def mean_log(factors: tuple[float, float]) -> float:
        rng = np.random.default_rng(3)
        logs = [
            np.log(vary(Perturb(0, factors), {"x": 1.0}, rng, {"x": Float(1e-9, 1e9)})["x"])
            for _ in range(40_000)
        ]
        return float(np.mean(logs))

    # (ln 1.2 + ln 0.8) / 2 = -0.0204; standard error of 40,000 draws: 0.001
    assert mean_log((0.8, 1.2)) == pytest.approx(-0.0204, abs=0.004)
    assert mean_log((0.8, 1.25)) == pytest.approx(0.0, abs=0.004)


def test_resample_share_and_direction_are_as_asked() -> None:
    rng = np.random.default_rng(2)
    values = [vary(Perturb(0.25), {"x": 0.5}, rng)["x"] for _ in range(20_000)]
    up, down = values.count(0.625), values.count(0.4)
    assert 1 - (up + down) / len(values) == pytest.approx(0.25, abs=0.013)  # 4 sigma
    assert up / (up + down) == pytest.approx(0.5, abs=0.017)


def test_constants_stay_the_members_own_also_inside_a_nest() -> None:
    space = {"rate": Float(0, 1), "inner": {"seed": Constant(0), "kind": Categorical(("a", "b"))}}
    donor = {"rate": 0.5, "inner": {"seed": 1, "kind": "a"}}
    own = {"rate": 0.1, "inner": {"seed": 2, "kind": "b"}}
    varied = explore(Resample(), space, donor, own, np.random.default_rng(1))
    assert varied["inner"]["seed"] == 2 and varied["inner"]["kind"] in ("a", "b")
    assert varied["rate"] not in (0.1, 0.5)
    assert sample_space(space, np.random.default_rng(0))["inner"]["seed"] == 0


def test_a_domain_does_not_shift_its_neighbours_numbers() -> None:
    rng = np.random.default_rng
    both = vary(Perturb(), {"a": 0.5, "b": 0.5}, rng(9), {"a": Float(0, 1), "b": Float(0, 1)})
    other = vary(Perturb(), {"a": "x", "b": 0.5}, rng(9), {"a": Categorical(("x", "y")), "b": Float(0, 1)})
    assert both["b"] == other["b"]


def test_shifts_by_hand() -> None:
    rng = np.random.default_rng(0)
    assert Float(0.0, 10.0).shift(5.0, 0.2, rng) == 7.0
    assert Float(0.0, 10.0).shift(9.0, 0.2, rng) == 10.0
    # a tenth of four decades: times 10^0.4
    assert Float(1e-4, 1.0, log=True).shift(0.01, 0.1, rng) == pytest.approx(0.01 * 10**0.4)
    assert [Int(1, 100).shift(50, amount, rng) for amount in (0.1, -0.1, 0.001)] == [60, 40, 51]
    assert [Ordered((1, 2, 3, 4, 5)).shift(3, amount, rng) for amount in (0.01, 0.5, -0.3)] == [4, 5, 2]


def test_log_samples_are_even_over_orders_of_magnitude() -> None:
    drawn = [
        sample_space({"x": Float(1e-4, 1.0, log=True)}, np.random.default_rng(i))["x"] for i in range(4000)
    ]
    shares = np.histogram(np.log10(drawn), bins=4, range=(-4, 0))[0] / 4000
    assert np.abs(shares - 0.25).max() < 0.03


def test_log_samples_of_whole_numbers_reach_both_ends() -> None:
    # [1, 2), [2, 3), [3, 4) and [4, 5) of [1, 5), in logarithms
    rng, domain = np.random.default_rng(0), Int(1, 4, log=True)
    counts = np.bincount([domain.sample(rng) for _ in range(8000)], minlength=5)[1:]
    assert counts / 8000 == pytest.approx(np.log([2, 3 / 2, 4 / 3, 5 / 4]) / np.log(5), abs=0.02)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Float(3, 1), r"low < high must hold, but got low=3, high=1"),
        (lambda: Float(0, 1, log=True), r"log domain needs low > 0, but got low=0"),
        (lambda: Float(0, float("inf")), "must be finite"),
        (lambda: Categorical(("a",)), "at least two"),
        (lambda: Ordered((1, 2, 1)), "differ"),
    ],
)
def test_a_domain_that_cannot_be_is_refused(make, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
