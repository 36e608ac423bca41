import numpy as np
import pytest

from shoal.policies.space import domains_of, nested, value_at
from shoal.search.driver.start import first_state
from shoal.search.load import load_run

FILE = """
name: start
trainable: tests.helpers.members:own_points
hyperparameters:
  learning_rate: {kind: float, low: 1e-4, high: 1e-1, log: true}
  dropout: {kind: float, low: 0.0, high: 0.5}
  warmup: {kind: int, low: 1, high: 8}
  beta2: {kind: ordered, values: [0.9, 0.95, 0.99]}
  clip: {kind: categorical, values: [0.5, 1.0]}
  inner: {deep: {size: {kind: int, low: 1, high: 2}}, flag: {kind: bool}}
  beta1: {kind: constant, value: 0.9}
population: {members: 32, exploit: none, start: optuna}
"""


@pytest.fixture
def file(tmp_path) -> str:
    path = tmp_path / "start.yaml"
    path.write_text(FILE)
    return str(path)


def test_a_spread_start_lies_in_the_domains_and_repeats(file) -> None:
    run = load_run(file)
    state = first_state(run)
    space = run.space()
    assert len(state) == 32 and state == first_state(run) != first_state(load_run(file, ["seed=1"]))
    for known in state:
        assert known.hyperparameters.keys() == space.keys()
        values = {path: value_at(known.hyperparameters, path) for path in domains_of(space)}
        assert all(domain.contains(values[path]) for path, domain in domains_of(space).items())
        assert nested(values) == known.hyperparameters
    assert {known.hyperparameters["beta2"] for known in state} == {0.9, 0.95, 0.99}
    assert {known.hyperparameters["beta1"] for known in state} == {0.9}


def test_a_spread_start_leaves_no_eighth_of_a_domain_empty(file) -> None:
    # of 31 points of a Sobol sequence 3 or 4 lie in each eighth; of 32 random ones some eighth often has none
    for seed in range(5):
        state = first_state(load_run(file, [f"seed={seed}"]))
        for name, low, high in (("learning_rate", -4.0, -1.0), ("dropout", 0.0, 0.5)):
            values = np.array([known.hyperparameters[name] for known in state])
            values = np.log10(values) if name == "learning_rate" else values
            counts = np.histogram(values, 8, (low, high))[0]
            assert counts.min() >= 3


def test_a_random_start_is_the_policys_own(file) -> None:
    run = load_run(file, ["population.start=random"])
    assert first_state(run)[0].hyperparameters != first_state(load_run(file))[0].hyperparameters
