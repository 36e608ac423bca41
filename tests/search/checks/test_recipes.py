"""Densities and bits in a run's file: what cannot be is refused in one line, and what is emulated is said."""

from typing import Any

import pytest
import yaml

from shoal.search.checks.recipes import note_on_emulation
from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.load import load_run

BITS = {"kind": "ordered", "values": [4, 8, 32]}


def load(tmp_path, **changes: Any) -> Run:
    values: dict[str, Any] = {
        "name": "few",
        "data": {"groups": {"code": "installed"}},
        "training": {"steps": 20},
        "hyperparameters": {"bits": BITS},
        "population": {"members": 4, "interval": 5},
        "price": 0.1,
    }
    for key, value in changes.items():
        section, _, inner = key.partition("__")
        values[section] = {**values.get(section, {}), inner: value} if inner else value
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(values))
    return load_run(str(file))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"hyperparameters__bits": {"kind": "int", "low": 4, "high": 8}},
            "hyperparameters.bits: must be of kind ordered",
        ),
        (
            {"hyperparameters__bits": {"kind": "ordered", "values": [4, 5]}},
            "training.bits must be one of 4, 6, 8",
        ),
        (
            {"training__bits": 12, "price": 0.0, "hyperparameters": {}},
            "training.bits: must be one of 4, 6, 8, 16, 32",
        ),
        ({"training__density": 0.0}, "training.density: must be above 0 and at most 1"),
        ({"training__precision": "bfloat16"}, "training.precision: must be left out with bits"),
        (
            {"training__gradient_checkpointing": True},
            "training.gradient_checkpointing: must be left out with bits",
        ),
        ({"cluster__compile": True}, "cluster.compile: must be false with training.bits"),
        ({"price": 0.0}, "or make it a constant (training.bits)"),
        (
            {"price": 0.0, "hyperparameters": {"density": {"kind": "float", "low": 0.1, "high": 1.0}}},
            "population.parts: {density: [...]}",
        ),
        (
            {"hyperparameters": {"densities": {"kind": "categorical", "values": ["erk", "uniform"]}}},
            "densities",
        ),
        ({"hyperparameters": {"seed": BITS}}, "hyperparameters.seed: decoder has no such hyperparameter"),
    ],
)
def test_a_mistake_is_named_in_one_line(tmp_path, changes, said) -> None:
    with pytest.raises(InputError) as error:
        load(tmp_path, **changes)
    assert said in str(error.value)


def test_a_number_under_precision_is_bits(tmp_path) -> None:
    run = load(tmp_path, training__precision=8, hyperparameters={}, price=0.0, population__exploit="none")
    assert run.training.bits == 8 and run.training.precision == "float32"
    with pytest.raises(
        InputError, match="training: must have `precision` as a word where it has `bits`, got 8"
    ):
        load(tmp_path, training={"precision": 8, "bits": 4})
    with pytest.raises(InputError, match="training: bits must be one of 4, 6, 8, 16, 32, but got 7"):
        load(tmp_path, training__precision=7)


def test_what_is_emulated_is_said_before_a_run(tmp_path) -> None:
    run = load(tmp_path, training__density=0.5)
    assert "emulated in float32" in note_on_emulation(run) and "zeros" in note_on_emulation(run)
    assert note_on_emulation(load(tmp_path, hyperparameters={}, price=0.0, population__exploit="none")) == ""
