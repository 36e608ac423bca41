"""Files of small runs, as text: the toy, text, a mixture, and a class of the user's own."""

TOY = """\
name: toy
trainable: toy
training: {steps: 200}
hyperparameters:
  h0: {kind: float, low: 0.0, high: 1.0}
  h1: {kind: float, low: 0.0, high: 1.0}
population: {members: 4, interval: 20}
cluster: {broods: 1}
"""
TEXT = """\
name: text
data: {groups: {code: installed, more: texts}}
hyperparameters:
  learning_rate: {kind: float, low: 0.0001, high: 0.01, log: true}
"""
MIXED = TEXT + "  mixing: {rate: {kind: float, low: 0.1, high: 0.5}}\nmixing: {policy: aioli}\n"
OWN = """\
name: own
trainable: MODULE:Slope
training: {steps: 40}
hyperparameters:
  rate: {kind: float, low: 0.001, high: 0.1, log: true}
population: {members: 2, interval: 10, exploit: {kind: truncation, fraction: 0.5}}
cluster: {broods: 1}
"""
CLASS = """\
import numpy as np


class Slope:
    def __init__(self, recipe, hyperparameters, seed, device):
        self.chosen, self.trained = hyperparameters, 0

    def train(self, steps):
        self.trained += steps
        return 0.0

    def evaluate(self, split="validation"):
        return 0.0, {}

    def state(self):
        return {"weights": {"slope": np.zeros(1)}, "trained": self.trained}

    def load(self, state, hyperparameters):
        self.trained = state["trained"]
"""
