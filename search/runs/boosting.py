"""RegMix's own regression: gradient boosted trees, if LightGBM is installed."""

from collections.abc import Callable

import numpy as np

from shoal.policies.arrays import Vector
from shoal.search.errors import InputError

TREE_SETTINGS = {
    "objective": "regression",
    "learning_rate": 0.01,
    "num_threads": 1,
    "deterministic": True,
    "verbosity": -1,
}
ROUNDS, PATIENCE = 1000, 3
HELD_OUT = 8  # one in 8 runs decides when to stop early; runs that judge the fit are none of them


def boosted(mixtures: Vector, losses: Vector, seed: int = 0) -> Callable[[Vector], Vector]:
    """Return a predictor (mixtures, targets) out of (runs, groups) and (runs, targets) (Liu et al., 2025).

    Trees do not extrapolate: they say nothing about mixtures beyond those of the runs.
    """
    try:
        import lightgbm
    except ImportError as missing:
        raise InputError("boosted trees need LightGBM: pip install 'shoal[boosting]'.") from missing
    order = np.random.default_rng(seed).permutation(len(mixtures))
    watched, trained = order[: len(order) // HELD_OUT], order[len(order) // HELD_OUT :]
    models = []
    for target in losses.T:
        rows = lightgbm.Dataset(mixtures[trained], target[trained])
        watch = lightgbm.Dataset(mixtures[watched], target[watched], reference=rows)
        models.append(
            lightgbm.train(
                TREE_SETTINGS | {"seed": seed},
                rows,
                num_boost_round=ROUNDS,
                valid_sets=[watch],
                callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
            )
        )
    return lambda others: np.column_stack([model.predict(others) for model in models])
