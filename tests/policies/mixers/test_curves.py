import numpy as np
import pytest

from shoal.policies.mixers.curves import LossCurve, _misfit, fit_curve

NEVER = LossCurve(np.nan, np.nan, np.nan)


@pytest.mark.parametrize("planted", [LossCurve(2.2, 30.0, 0.25), LossCurve(1.8, 8.0, 0.12)])
@pytest.mark.parametrize("unit", [1.0, 0.01])  # nats, or something a hundred times larger
def test_a_planted_curve_is_found(planted: LossCurve, unit: float) -> None:
    at = np.linspace(1000, 1e6, 200)
    losses = unit * (planted.eps + planted.beta * at**-planted.alpha)
    found = fit_curve(at, losses, NEVER)
    assert [found.eps / unit, found.beta / unit, found.alpha] == pytest.approx(planted, rel=1e-4)
    slope = found.alpha * found.beta / (planted.alpha * planted.beta * unit)
    assert slope * 1e6 ** (planted.alpha - found.alpha) == pytest.approx(1, abs=1e-5)
    again = fit_curve(at, losses, found)  # from a warm start
    assert again == pytest.approx(found, rel=1e-4)


def test_gradients_are_those_of_differences() -> None:
    rng = np.random.default_rng(0)
    logs, heights = np.linspace(-2, 2, 30), rng.normal(0, 0.01, 30)
    for point in (np.array([-0.5, -1.0, 0.2]), np.array([-4.0, 4.0, 1.2]), np.array([-0.5, -0.5, -0.1])):
        _, gradient = _misfit(point, logs, heights)
        for place in range(3):
            step = np.eye(3)[place] * 1e-6
            slope = (_misfit(point + step, logs, heights)[0] - _misfit(point - step, logs, heights)[0]) / 2e-6
            assert gradient[place] == pytest.approx(slope, rel=1e-4, abs=1e-8)


def test_losses_that_cannot_be_fitted_keep_the_curve() -> None:
    known = LossCurve(1.0, 2.0, 0.3)
    assert fit_curve(np.arange(1.0, 50), np.full(49, np.nan), known) == known


def test_a_plateau_has_no_slope() -> None:
    at = np.linspace(1000, 1e5, 100)
    found = fit_curve(at, np.full(100, 2.5), NEVER)
    assert found.alpha * found.beta * at[-1] ** -found.alpha < 0.01
