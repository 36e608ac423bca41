"""A whole run of a class of the user's own whose state, load or test raises in some members: it goes on."""

import pytest

from shoal.cluster.storage import Store
from tests.helpers.runs import shoal

CLASS = """\
import numpy as np


class Odd:
    def __init__(self, recipe, hyperparameters, seed, device):
        self.rate, self.trained, self.value = hyperparameters["rate"], 0, 0.0

    def train(self, steps):
        self.trained, self.value = self.trained + steps, self.value + steps * self.rate
        return 0.0

    def evaluate(self, split="validation"):
        assert split == "validation" or self.rate < 0.5, "no test rows above 0.5"
        return self.value, {}

    def state(self):
        assert self.rate < 0.7 or self.trained < 8, "no state above 0.7"
        return {"weights": {"value": np.array(self.value)}, "trained": self.trained}

    def load(self, state, hyperparameters):
        assert self.rate > 0.2 or self.trained == 0, "no weights of others below 0.2"
        self.trained, self.value = state["trained"], float(state["weights"]["value"])
        self.rate = hyperparameters["rate"]
"""
FILE = """\
name: odd
trainable: odd:Odd
training: {steps: 20}
starts: []
hyperparameters:
  rate: {kind: float, low: 0.0, high: 1.0}
population: {members: 8, interval: 4}
cluster: {broods: 2}
"""


@pytest.mark.ray
@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_only_the_members_whose_own_code_raises_fail(tmp_path, mode: str) -> None:
    (tmp_path / "odd.py").write_text(CLASS)
    (tmp_path / "odd.yaml").write_text(FILE)
    said = shoal("run", "odd.yaml", f"population.mode={mode}", folder=tmp_path)
    assert "best member" in said
    store = Store(f"{tmp_path}/runs/odd")
    assert store.read_json("summary.json")["status"] == "done"
    traces = "".join(path.read_text() for path in (tmp_path / "runs/odd/failures").glob("*.txt"))
    assert "no state above 0.7" in traces
