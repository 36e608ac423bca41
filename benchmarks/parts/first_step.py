"""The toy with a clock: when its members are made, and when the first of them takes its first step.

`python -m benchmarks.parts.first_step FOLDER` trains it by stock Ray Tune with reused actors, as a script
would.
"""

import pickle
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from shoal.trainables.toy import Toy

MEMBERS, STEPS, INTERVAL = 4, 40, 4


def note(folder: str, what: str) -> None:
    """Write down that something happens now, in a file of its own: several processes do."""
    Path(folder, f"{what}-{uuid.uuid4().hex}").write_text(str(time.time()))


def noted(folder: Path, what: str) -> float:
    """Return when something happened first."""
    return min(float(file.read_text()) for file in folder.glob(f"{what}-*"))


class Clocked(Toy):
    """The toy as a class of the user's own; the folder of its notes is a constant among its hyperparameters."""

    def __init__(self, recipe: Any, hyperparameters: dict[str, Any], seed: int, device: str):
        super().__init__(hyperparameters)
        self.noted = False
        note(hyperparameters["notes"], "made")

    def train(self, steps: int) -> float:
        if not self.noted:
            note(self.hyperparameters["notes"], "step")
            self.noted = True
        return super().train(steps)


def train_by_stock(folder: str) -> None:
    """Train the toy by stock PBT: a class trainable, with actors that are reused."""
    import os

    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    import ray
    from ray import tune
    from ray.tune.schedulers import PopulationBasedTraining

    class Trial(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.toy = Clocked(None, config, 0, "cpu")

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.toy = Clocked(None, new_config, 0, "cpu")
            return True

        def step(self) -> dict[str, Any]:
            self.toy.train(INTERVAL)
            return {"score": self.toy.score(), "done": self.toy.trained >= STEPS}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            Path(checkpoint_dir, "toy.pickle").write_bytes(pickle.dumps(self.toy.state()))

        def load_checkpoint(self, checkpoint: Any) -> None:
            state = pickle.loads(Path(checkpoint, "toy.pickle").read_bytes())
            self.toy.load(state, self.toy.hyperparameters)

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    note(folder, "ray")
    unit = {"h0": tune.uniform(0.0, 1.0), "h1": tune.uniform(0.0, 1.0)}
    share = 0.9 * ray.cluster_resources()["CPU"] / MEMBERS
    tune.Tuner(
        tune.with_resources(Trial, {"cpu": round(share, 4)}),
        param_space={**unit, "notes": folder},
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            num_samples=MEMBERS,
            reuse_actors=True,
            scheduler=PopulationBasedTraining(
                time_attr="training_iteration", perturbation_interval=1, hyperparam_mutations=unit
            ),
        ),
        run_config=tune.RunConfig(name="stock", storage_path=f"{folder}/ray", verbose=0),
    ).fit()
    ray.shutdown()


if __name__ == "__main__":
    train_by_stock(sys.argv[1])
