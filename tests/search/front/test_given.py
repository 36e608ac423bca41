"""`shoal.validate` takes a file, a mapping or a run, and a class in place of its name."""

import sys

import pytest

import shoal
from tests.helpers.directories import TOY

SETTINGS = {
    "name": "toy",
    "trainable": "toy",
    "training": {"steps": 40},
    "hyperparameters": {name: {"kind": "float", "low": 0.0, "high": 1.0} for name in ("h0", "h1")},
    "population": {"members": 4, "interval": 4},
    "cluster": {"broods": 1},
}


class Still:
    """A member that learns nothing."""

    def __init__(self, recipe, hyperparameters, seed, device):
        self.trained = 0

    def train(self, steps):
        self.trained += steps
        return 0.0

    def evaluate(self, split="validation"):
        return float(self.trained), {}

    def state(self):
        return {"weights": {}, "trained": self.trained}

    def load(self, state, hyperparameters):
        self.trained = state["trained"]


def test_a_mapping_and_a_file_of_the_same_values_are_one_run(tmp_path) -> None:
    import yaml

    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(SETTINGS))
    assert shoal.validate(SETTINGS) == shoal.validate(tmp_path / "toy.yaml")


def test_changes_are_values_by_dotted_keys() -> None:
    run = shoal.validate(TOY, {"population.members": 8, "training.steps": 80})
    assert (run.population.members, run.training.steps) == (8, 80)
    assert shoal.validate(TOY, ["population.members=8", "training.steps=80"]) == run


def test_a_checked_run_may_be_given_again() -> None:
    run = shoal.validate(TOY)
    assert shoal.validate(run) == run
    assert shoal.validate(run, {"seed": 7}).seed == 7


def test_what_is_given_is_left_as_it_was(tmp_path) -> None:
    given = {**SETTINGS, "directory": tmp_path / "run"}
    assert shoal.validate(given, {"training.steps": 8}).directory == f"{tmp_path}/run"
    assert given["training"] == {"steps": 40}


def test_mistakes_name_the_key() -> None:
    with pytest.raises(shoal.InputError, match=r"settings: population.membres: unknown key; did you mean"):
        shoal.validate({**SETTINGS, "population": {"membres": 4}})
    with pytest.raises(shoal.InputError, match=r"name\.x: name holds a value, so nothing can be set inside"):
        shoal.validate(SETTINGS, {"name.x": 1})
    with pytest.raises(shoal.InputError, match=r"trainable: must be a class, or the name of one"):
        shoal.validate({**SETTINGS, "trainable": Still(None, {}, 0, "cpu")})


def test_a_class_may_stand_in_place_of_its_name() -> None:
    run = shoal.validate({**SETTINGS, "trainable": Still})
    module, _, name = run.trainable.partition(":")
    assert getattr(sys.modules[module], name) is Still
    assert run.code == f"{run.directory}/code"
    assert shoal.validate({**SETTINGS, "trainable": Still}).trainable == run.trainable, "named by its source"


def test_a_class_needs_a_directory_that_is_a_path() -> None:
    with pytest.raises(shoal.InputError, match="must then be a path"):
        shoal.validate({**SETTINGS, "trainable": Still, "directory": "s3://bucket/run"})


def test_the_class_in_the_directory_is_found_by_another_process(tmp_path) -> None:
    import os
    import subprocess

    from shoal.search.front.shipped import write_class

    run = shoal.validate({**SETTINGS, "trainable": Still, "directory": tmp_path / "run"})
    write_class(run)
    program = (
        "from shoal.search.members.own_class import own_class; "
        f"made = own_class({run.trainable!r}, {run.code!r})(None, {{}}, 0, 'cpu'); "
        "made.train(3); print(made.evaluate())"
    )
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(shoal.__file__))}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "(3.0, {})", done.stderr


def test_a_name_that_shoal_has_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'shoal' has no attribute 'trian'"):
        _ = shoal.trian
    assert {"run", "open", "validate", "schema"} <= set(dir(shoal))
