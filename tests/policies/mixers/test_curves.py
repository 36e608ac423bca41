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
        here = _misfit(point, logs, heights)
        for place in range(3):
            step = np.eye(3)[place] * 1e-7
            more, less = (_misfit(point + way * step, logs, heights) for way in (1, -1))
            assert here.gradient[place] == pytest.approx((more.value - less.value) / 2e-7, rel=1e-4, abs=1e-8)
            turned = (more.gradient - less.gradient) / 2e-7
            assert here.curvature[place] == pytest.approx(turned, rel=1e-3, abs=1e-6)
            assert np.linalg.eigvalsh(here.bound).min() > -1e-12


@pytest.mark.parametrize(
    "planted", [LossCurve(2.0, 20.0, 0.3), LossCurve(2.0, 40.0, 0.3), LossCurve(3.0, 10.0, 0.6)]
)
def test_with_noise_and_outliers_the_fit_is_where_scipy_finds_it(planted: LossCurve) -> None:
    from scipy.optimize import minimize

    rng, at = np.random.default_rng(0), 8.0 * np.arange(1, 301)
    losses = (planted.eps + planted.beta * at**-planted.alpha) * np.exp(rng.normal(0, 0.03, 300))
    losses[::29] *= 1.5
    found = fit_curve(at, losses, NEVER)
    middle, level = float(np.exp(np.log(at).mean())), float(np.median(losses))
    arguments = np.log(at / middle), np.log(losses / level)

    def function(point: np.ndarray) -> float:
        return _misfit(point, *arguments).value

    slope = np.log(found.beta / level) - found.alpha * np.log(middle)
    here = np.array([np.log(found.eps / level), slope, found.alpha])
    options = {"xatol": 1e-10, "fatol": 1e-16, "maxiter": 20_000, "maxfev": 20_000}
    for start in (here, np.array([-0.5, -0.5, 0.3])):
        theirs = minimize(function, start, method="Nelder-Mead", options=options)
        assert function(here) <= theirs.fun * (1 + 1e-5)


def test_losses_that_cannot_be_fitted_keep_the_curve() -> None:
    known = LossCurve(1.0, 2.0, 0.3)
    assert fit_curve(np.arange(1.0, 50), np.full(49, np.nan), known) == known


def test_a_plateau_has_no_slope() -> None:
    at = np.linspace(1000, 1e5, 100)
    found = fit_curve(at, np.full(100, 2.5), NEVER)
    assert found.alpha * found.beta * at[-1] ** -found.alpha < 0.01
