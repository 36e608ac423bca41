import numpy as np
import pytest
from scipy.optimize import minimize

from shoal.policies.minimise import minimise, multistart


def rosenbrock(at: np.ndarray) -> tuple[float, np.ndarray]:
    ahead, now = at[1:], at[:-1]
    value = (100 * (ahead - now**2) ** 2 + (1 - now) ** 2).sum()
    gradient = np.zeros_like(at)
    gradient[:-1] = -400 * now * (ahead - now**2) - 2 * (1 - now)
    gradient[1:] += 200 * (ahead - now**2)
    return float(value), gradient


def test_it_ends_where_scipy_does() -> None:
    for size in (2, 5, 18):
        start = np.linspace(-1.2, 1.2, size)
        ours = minimise(rosenbrock, start)
        theirs = minimize(rosenbrock, start, jac=True, method="BFGS", options={"gtol": 1e-10})
        assert ours.value <= theirs.fun + 1e-12 and ours.point == pytest.approx(theirs.x, abs=1e-5)


@pytest.mark.parametrize("unit", [1e-14, 1e-6, 1e12])
def test_the_functions_unit_does_not_matter(unit: float) -> None:
    # of 1e-14 times the function no gradient is above 3e-12, not even at the start
    found = minimise(lambda at: tuple(unit * part for part in rosenbrock(at)), np.array([-1.2, 1.0]))
    assert found.point == pytest.approx([1, 1], abs=1e-6) and found.converged


def test_a_search_that_was_cut_off_says_so() -> None:
    cut, whole = (minimise(rosenbrock, np.array([-1.2, 1.0]), iterations) for iterations in (5, 500))
    assert not cut.converged and cut.value > 0.1
    assert whole.converged and whole.value < 1e-12


def test_a_quadratic_is_solved_exactly() -> None:
    # x^2 + 2 y^2 + x y - 3 x: gradient (2x + y - 3, 4y + x) = 0 at x = 12/7, y = -3/7
    curvature = np.array([[2.0, 1.0], [1.0, 4.0]])

    def function(at: np.ndarray) -> tuple[float, np.ndarray]:
        gradient = curvature @ at - [3.0, 0.0]
        return float(0.5 * at @ (gradient - [3.0, 0.0])), gradient

    assert minimise(function, np.array([9.0, -9.0])).point == pytest.approx([12 / 7, -3 / 7], abs=1e-9)


def test_where_the_function_is_not_finite_it_does_not_go() -> None:
    def function(at: np.ndarray) -> tuple[float, np.ndarray]:
        with np.errstate(all="ignore"):
            return float((at - np.log(at)).sum()), 1 - 1 / at

    assert minimise(function, np.array([0.01, 30.0])).point == pytest.approx([1, 1], abs=1e-7)
    with pytest.raises(ValueError, match="finite at the start"):
        minimise(function, np.array([-1.0]))


def test_starts_that_agree_are_counted() -> None:
    # (x^2 - 1)^2 + x / 10: its deeper minimum is on the left
    def function(at: np.ndarray) -> tuple[float, np.ndarray]:
        return float(((at**2 - 1) ** 2 + at / 10).sum()), 4 * at * (at**2 - 1) + 0.1

    found = multistart(function, [np.array([at]) for at in (-3.0, -0.5, 2.0)])
    assert found.point[0] < -1 and found.agreeing == 2
