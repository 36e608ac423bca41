"""Ray Tune's own ASHA on a benchmark's task, stopped when it has used the same member-steps."""

import logging
import os
import tempfile
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler

from benchmarks.tasks import Task
from policies import population


class Spent(tune.Stopper):
    """Ends the experiment when all trials together have trained so many steps."""

    def __init__(self, steps: int, interval: int):
        self.left, self.interval = steps, interval

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.left -= self.interval
        return False

    def stop_all(self) -> bool:
        return self.left <= 0


def train_by_asha(task: Task, seed: int) -> float:
    """Return what the trial that is best on the validation rows has on the test rows."""
    starts = population.start(task.space, 16 * task.members, seed)  # more than the budget can begin

    def trial(config: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        number = config["number"]
        member = task.make(starts[number].hyperparameters, 1000 * seed + number)
        for _ in range(task.steps // task.interval):
            member.train(task.interval)
            score, _ = member.evaluate()
            test, losses = member.evaluate("test")
            tune.report({"score": score, "test": losses.get("accuracy", -test)})

    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            results = tune.Tuner(
                tune.with_resources(trial, {"cpu": 0.9}),
                param_space={"number": tune.grid_search(list(range(len(starts))))},
                tune_config=tune.TuneConfig(
                    metric="score",
                    mode="max",
                    scheduler=AsyncHyperBandScheduler(
                        max_t=task.steps // task.interval, grace_period=1, reduction_factor=4
                    ),
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    storage_path=folder, verbose=0, stop=Spent(task.members * task.steps, task.interval)
                ),
            ).fit()
            best = results.get_best_result("score", "max", filter_nan_and_inf=True)
    finally:
        ray.shutdown()
    assert best.metrics is not None
    return float(best.metrics["test"])
