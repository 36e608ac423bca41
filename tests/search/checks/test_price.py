"""A setting that trades loss for cost is searched within parts, at a price, or not at all."""

from typing import Any

import pytest
import yaml

from shoal.policies.space import Constant
from shoal.search.config.run import Run
from shoal.search.driver.start import first_state
from shoal.search.errors import InputError
from shoal.search.load import dump, load_run, run_of

OWN = """
from shoal.trainables.network import Network
from torch import nn


class Sparse(Network):
    takes = {"tokens"}
    by_row = True
    searched = priced = {"kept"}
    kept: float = 1.0

    def build(self):
        return nn.Linear(1, 1)

    def loss(self, module, batch, numbers):
        return module(batch[:, :1].float())[:, 0]

    def costs(self):
        return {"kept": self.numbers["kept"]}
"""
KEPT = {"kind": "float", "low": 0.1, "high": 1.0}
RATE = {"kind": "float", "low": 0.001, "high": 0.1, "log": True}


@pytest.fixture(scope="module")
def code(tmp_path_factory) -> str:
    """Return the folder of the class: Python knows one module of a name."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "sparse_for_prices.py").write_text(OWN)
    return str(folder)


def load(code: str, tmp_path, **changes: Any) -> Run:
    values = {
        "name": "priced",
        "trainable": "sparse_for_prices:Sparse",
        "code": code,
        "data": {"groups": {"code": "installed"}},
        "training": {"steps": 20},
        "hyperparameters": {"learning_rate": RATE, "kept": KEPT},
        "population": {"members": 4, "interval": 5},
    }
    for key, value in changes.items():
        section, _, inner = key.partition("__")
        values[section] = {**values[section], inner: value} if inner else value  # type: ignore[dict-item]
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(values))
    return load_run(str(file))


def test_a_search_without_a_price_is_refused_and_told_the_three_ways_out(code, tmp_path) -> None:
    with pytest.raises(InputError) as error:
        load(code, tmp_path)
    said = str(error.value)
    assert "hyperparameters.kept: trades loss for cost" in said
    assert (
        "population.parts: {kept: [...]}" in said
        and "price: 0.1" in said
        and "constant (settings.kept)" in said
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"price": 0.1},
        {"hyperparameters": {"learning_rate": RATE}, "population__parts": {"kept": [0.2, 1.0]}},
        {"hyperparameters": {"learning_rate": RATE}, "settings": {"kept": 0.5}},
        {"hyperparameters": {"learning_rate": RATE, "kept": {"kind": "constant", "value": 0.5}}},
        {"population__exploit": "none"},  # nobody copies, so nothing is driven anywhere
    ],
)
def test_each_way_out_is_one(code, tmp_path, changes) -> None:
    run = load(code, tmp_path, **changes)
    assert run_of(yaml.safe_load(dump(run)), "again", str(tmp_path)) == run


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"price": -1}, "price: must be greater than or equal to 0"),
        (
            {"price": 0.1, "hyperparameters": {"learning_rate": RATE}},
            "price: no hyperparameter of this run trades loss for cost; bits, density, kept, prior would",
        ),
        (
            {"price": 0.1, "population__parts": {"kept": [0.2, 1.0]}},
            "population.parts.kept: is searched already",
        ),
        ({"population__parts": {"kept": [0.2, 0.2]}, "price": 1}, "population.parts.kept: is searched already"),
        (
            {"population__parts": {"beta1": [0.2, 0.2]}, "price": 1},
            "population.parts.beta1: must be values that differ",
        ),
        (
            {"population__parts": {"beta1": [0.2, 2.0]}, "price": 1},
            "population.parts.beta1: training.beta1 must be",
        ),
        (
            {"population__parts": {"bita1": [0.2, 0.3]}, "price": 1},
            "population.parts.bita1: Sparse has no such",
        ),
        (
            {"population__parts": {"beta1": [0.2, 0.3, 0.4]}, "price": 1},
            "population.members: exploit needs at least 2 members of each part, got 1",
        ),
        (
            {"population__parts": {"beta1": [0.2, 0.3, 0.4]}, "population__members": 8, "price": 1},
            "population.members: must be a multiple of the 3 parts, so that all have equally many, got 8; 9",
        ),
    ],
)
def test_a_mistake_is_named_in_one_line(code, tmp_path, changes, said) -> None:
    with pytest.raises(InputError) as error:
        load(code, tmp_path, **changes)
    assert said in str(error.value)


def test_members_are_dealt_out_to_the_parts_and_keep_their_value(code, tmp_path) -> None:
    parts = {"kept": [0.2, 1.0], "beta1": [0.5, 0.9]}
    run = load(
        code,
        tmp_path,
        hyperparameters={"learning_rate": RATE},
        population__parts=parts,
        population__members=8,
        population__exploit={"kind": "truncation", "fraction": 0.5},
    )
    state = first_state(run)
    values = [(each.hyperparameters["kept"], each.hyperparameters["beta1"]) for each in state]
    assert values == [(0.2, 0.5), (1.0, 0.5), (0.2, 0.9), (1.0, 0.9)] * 2 and run.parts == 4
    # a constant is the member's own whatever it copies
    assert {type(domain) for name, domain in run.space().items() if name in parts} == {Constant}


def test_a_price_makes_the_score_no_loss(code, tmp_path) -> None:
    priced = load(code, tmp_path, price=0.1)
    assert not priced.by_loss and priced.ranked_by == "minus validation loss, less its price"
