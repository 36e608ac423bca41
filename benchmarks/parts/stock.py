"""Stock Ray Tune population based training on the paper's toy, in the shapes that Ray documents.

All report at ready points alone, as Shoal does, and are in step at the start: without waiting for each
other the first members reach a ready point while Tune still starts the last, and stock PBT answers that by
pausing and restarting everyone, exploit or not. Past the start every restart comes from an exploit: the
loser's own, or that of a member which was ready while the loser was away. PyTorch is imported only where
Ray Train runs, else every process of the other shapes would pay for it too.
"""

import logging
import os
import pickle
import random
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import ray
from ray import train, tune
from ray.tune.schedulers import PopulationBasedTraining

from benchmarks.parts.processes import (
    Measurement,
    copies,
    exploit_seconds,
    first_starts,
    note_report,
    note_start,
    processes_started,
    starts,
    wait_for_starts,
)
from shoal.trainables.toy import Toy

TRIAL_SHARE = 0.1  # of a member's CPUs, for the trial that only waits for its Train worker
SPREAD = 0.15  # of the starting weights, from the first member to the last
POLL_SECONDS = "0.1"  # Ray Train's default is 2.0, and every report waits for it
SETTINGS = {
    "stock_function": "function trainable, reuse_actors=False, checkpoint at each ready point",
    "stock_function_reuse": "function trainable, reuse_actors=True, checkpoint at each ready point",
    "stock_class": "class trainable, reuse_actors=True with reset_config, checkpoint when PBT asks",
    "stock_train": "function trainable around a TorchTrainer of 1 worker, TuneReportCallback, "
    f"checkpoint at each ready point, RAY_TRAIN_HEALTH_CHECK_INTERVAL_S={POLL_SECONDS}",
}


def save(toy: Toy, trial: str, folder: str) -> None:
    (Path(folder) / "member.pickle").write_bytes(pickle.dumps((trial, toy.state())))


def load(toy: Toy, folder: str) -> str:
    """Take over what `save` wrote and return the id of the trial that wrote it."""
    trial, state = pickle.loads((Path(folder) / "member.pickle").read_bytes())
    toy.load(state, toy.hyperparameters)
    return str(trial)


def first_toy(config: dict[str, Any]) -> Toy:
    """Return a member at its start: the first where the paper has it, the others a little farther out.

    From one point all score alike however they are trained, and march through the ready points together:
    stock PBT, which ranks a new score among older ones, then exploits one or two or, now and then, nobody.
    """
    toy = Toy(config)
    toy.place = toy.place * (1 + SPREAD * config["member"] / (config["members"] - 1))
    return toy


def climb(config: dict[str, Any], role: str, trial: str, checkpoint: Any, ray_part: ModuleType) -> None:
    """Train to the end, from `checkpoint` if any, reporting to `ray_part`: `ray.tune` or `ray.train`."""
    toy, source = first_toy(config), ""
    if checkpoint:
        with checkpoint.as_directory() as folder:
            source = load(toy, folder)
    note_start(config["starts"], role, trial, source)
    wait_for_starts(config["starts"], role, config["members"])
    while toy.trained < config["steps"]:
        toy.train(config["interval"])
        with tempfile.TemporaryDirectory() as folder:
            save(toy, trial, folder)
            saved = ray_part.Checkpoint.from_directory(folder)
            note_report(config["starts"], trial)
            ray_part.report({"score": toy.score()}, checkpoint=saved)


def function_trial(config: dict[str, Any]) -> None:
    climb(config, "trial", tune.get_context().get_trial_id(), tune.get_checkpoint(), tune)


class ClassTrial(tune.Trainable):
    def setup(self, config: dict[str, Any]) -> None:
        self.toy, self.waited = first_toy(config), False
        note_start(config["starts"], "trial", self.trial_id)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.toy = first_toy(new_config)
        note_start(new_config["starts"], "trial", self.trial_id)
        return True

    def step(self) -> dict[str, Any]:
        if not self.waited:
            wait_for_starts(self.config["starts"], "trial", self.config["members"])
            self.waited = True
        self.toy.train(self.config["interval"])
        note_report(self.config["starts"], self.trial_id)
        return {"score": self.toy.score(), "done": self.toy.trained >= self.config["steps"]}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        save(self.toy, self.trial_id, checkpoint_dir)

    def load_checkpoint(self, checkpoint: Any) -> None:
        note_start(self.config["starts"], "trial", self.trial_id, load(self.toy, checkpoint))


def train_worker(config: dict[str, Any]) -> None:
    checkpoint = config["checkpoint"] or train.get_checkpoint()
    climb(config, "worker", config["trial"], checkpoint, train)


def train_trial(config: dict[str, Any]) -> None:
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    class NotingCallback(TuneReportCallback):
        """Runs in the controller, whose start nothing else can note."""

        noted = False

        def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
            if not self.noted:
                note_start(config["starts"], "controller", trial)
                self.noted = True
            super().after_report(run_context, metrics, checkpoint)

    trial = tune.get_context().get_trial_id()
    callbacks: list[Any] = [NotingCallback()]
    note_start(config["starts"], "trial", trial)
    TorchTrainer(
        train_worker,
        train_loop_config={**config, "trial": trial, "checkpoint": tune.get_checkpoint()},
        scaling_config=train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": config["worker_cpus"]}),
        run_config=train.RunConfig(name=f"train-{trial}", storage_path=config["storage"], callbacks=callbacks),
    ).fit()


class SkippedExploits(logging.Handler):
    """Counts the only sign that stock PBT gives of an exploit not made: a line at level INFO."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "Skip exploit" in record.getMessage()

    def __enter__(self) -> "SkippedExploits":
        self.logger = logging.getLogger("ray.tune.schedulers.pbt")
        self.before = self.logger.level, self.logger.propagate
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False
        self.logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.logger.removeHandler(self)
        self.logger.level, self.logger.propagate = self.before


def clipped(config: dict[str, Any]) -> dict[str, Any]:
    """Keep h in [0, 1]: stock PBT multiplies beyond the bounds of its own domain."""
    return config | {name: min(1.0, max(0.0, config[name])) for name in ("h0", "h1")}


def space(members: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Return Tune's space: half of the members begin at h = (1, 0), the others at (0, 1)."""
    return {
        **settings,
        "members": members,
        "member": tune.grid_search(list(range(members))),
        "h0": tune.sample_from(lambda config: float(config["member"] < members / 2)),
        "h1": tune.sample_from(lambda config: float(config["member"] >= members / 2)),
    }


def trainable(system: str, share: float) -> Any:
    if system == "stock_class":
        return tune.with_resources(ClassTrial, {"cpu": share})
    if system == "stock_train":
        return tune.with_resources(train_trial, {"cpu": round(TRIAL_SHARE * share, 4)})
    return tune.with_resources(function_trial, {"cpu": share})


def scheduler() -> PopulationBasedTraining:
    return PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=1,  # a report is a ready point
        hyperparam_mutations={"h0": tune.uniform(0.0, 1.0), "h1": tune.uniform(0.0, 1.0)},
        custom_explore_fn=clipped,
    )


def tuner(
    system: str, folder: str, members: int, settings: dict[str, Any], pbt: PopulationBasedTraining
) -> tune.Tuner:
    # The shares leave a tenth of the machine free, so that no member ever waits for a slot.
    share = min(1.0, round(0.9 * ray.cluster_resources()["CPU"] / members, 4))
    settings = settings | {
        "starts": f"{folder}/starts",
        "storage": folder,
        "worker_cpus": round((1 - TRIAL_SHARE) * share, 4),
    }
    return tune.Tuner(
        trainable(system, share),
        param_space=space(members, settings),
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            scheduler=pbt,
            reuse_actors=system in ("stock_class", "stock_function_reuse"),
        ),
        run_config=tune.RunConfig(
            name=system,
            storage_path=folder,
            verbose=0,
            # All are kept: with a limit Tune deletes twice what a pause registered twice, and logs errors.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=None),
        ),
    )


def prepare() -> None:
    """Set what Tune and Train read from the environment; Ray's processes take it over at `ray.init`."""
    warnings.filterwarnings("ignore", message="Consider boosting PBT")  # measured with and without
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output prints its tables at verbose=0 too
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = POLL_SECONDS


def measure(system: str, members: int, steps: int, interval: int, seed: int) -> Measurement:
    """Run one stock system in the Ray that is connected, and count what happened."""
    random.seed(seed)  # stock PBT draws from the global generators
    np.random.seed(seed)
    with tempfile.TemporaryDirectory() as folder, SkippedExploits() as skipped:
        Path(folder, "starts").mkdir()
        pbt = scheduler()
        run = tuner(system, folder, members, {"steps": steps, "interval": interval}, pbt)
        began = time.time()
        results = run.fit()
        wall = time.time() - began
        events = starts(f"{folder}/starts")
        exploits = exploit_seconds(f"{folder}/starts", events)
    if results.errors:
        raise RuntimeError(f"{len(results.errors)} of {members} trials of {system} failed: {results.errors[0]}")
    return Measurement(
        wall_seconds=wall,
        startup_seconds=max(float(event["time"]) for event in first_starts(events).values()) - began,
        exploits=copies(events),
        processes_started=processes_started(events),
        best_score=max((results[trial].metrics or {})["score"] for trial in range(len(results))),
        members=members,
        steps=steps,
        interval=interval,
        exploits_decided=pbt._num_perturbations,  # there is no public count
        exploits_skipped=skipped.count,
        settings=SETTINGS[system],
        ms_per_exploit=1000 * statistics.median(exploits) if exploits else None,
    )
