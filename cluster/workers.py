"""Broods on Ray: one Tune trial a brood, one Ray Train worker group a trial, resident for the whole run.

Tune decides, but never starts or stops anything for an exploit: a trial only carries its workers'
reports to Tune. They take the mailbox and not `ray.train.report`, which waits for the Train
controller's next poll.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import train, tune
from ray.train.backend import BackendConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from shoal.cluster.reading import open_dataset
from shoal.cluster.session import bookkeeping
from shoal.cluster.storage import Store

TRIAL_CPUS = 0.05  # a trial only passes messages on


@dataclass(frozen=True)
class BroodResources:
    """What each brood gets: Ray Train workers, and CPUs and GPUs for each of them."""

    broods: int
    workers_per_brood: int
    cpus_per_worker: float
    gpus_per_worker: float
    restarts: int  # a brood starts again so often after the loss of a worker; announced losses do not count
    placement: str = "PACK"  # Ray's strategy for the placement group of a brood's workers
    others: Mapping[str, float] = field(default_factory=dict)  # resources of each worker besides
    joined: bool = False  # whether members span workers, which then need torch's process group

    def worker(self) -> dict[str, float]:
        return {"CPU": self.cpus_per_worker, "GPU": self.gpus_per_worker, **self.others}

    def needed(self) -> dict[str, float]:
        workers = self.broods * self.workers_per_brood
        needed = {kind: workers * amount for kind, amount in self.worker().items()}
        return needed | {"CPU": needed["CPU"] + self.broods * TRIAL_CPUS}

    def bundles(self) -> list[dict[str, float]]:
        """Return what an autoscaler has to find room for."""
        wanted = {kind: amount for kind, amount in self.worker().items() if amount}
        return [wanted] * self.broods * self.workers_per_brood


def backend(joined: bool) -> BackendConfig:
    """Return how the workers of a brood know one another.

    Workers of members that span several have torch's process group. Others have none: it would listen on every
    address of the machine, and its import of torch would keep the trial and Train's controller for seconds.
    """
    if not joined:
        return BackendConfig()
    from ray.train.torch import TorchConfig

    return TorchConfig()


def brood_trial(
    loop: Callable[[dict[str, Any]], None],
    work: Any,
    actor: Any,
    resources: BroodResources,
    files: Mapping[str, list[str]],  # group -> Parquet files, in the order of the first epoch
    corpus: str,
    storage: str,
    beside: Mapping[str, Any],  # further datasets, by name
) -> Any:
    """Return the Tune trainable of one brood: it trains `loop` on Train workers and passes reports on.

    `loop` gets what all broods get under "work", the number of its brood under "brood", and the mailbox actor
    under "mailbox".
    """

    # this is a class because a function's reports would change threads twice more on their way
    class Brood(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.brood = config["brood"]
            self.failure: BaseException | None = None
            self.over = False
            given = {"work": work, "brood": self.brood, "mailbox": actor}
            trainer = _trainer(loop, given, resources, files, corpus, storage, beside)
            threading.Thread(target=self.fit, args=(trainer,), daemon=True).start()

        def fit(self, trainer: DataParallelTrainer) -> None:
            try:
                trainer.fit()
            except BaseException as error:  # raised again below, in the thread that Tune watches
                self.failure = error
            finally:
                ray.get(actor.report.remote(self.brood, None))

        def step(self) -> dict[str, Any]:
            """Wait for messages; Tune hears of the last ones before it hears of the end."""
            messages = [] if self.over else ray.get(actor.next_reports.remote(self.brood))
            self.over = self.over or None in messages
            told = [message for message in messages if message is not None]
            if self.over and not told and self.failure is not None:
                raise self.failure
            return {"messages": told, "done": self.over and not told}

    return tune.with_resources(Brood, tune.PlacementGroupFactory([bookkeeping()]))


def _trainer(
    loop: Callable[[dict[str, Any]], None],
    given: dict[str, Any],
    resources: BroodResources,
    files: Mapping[str, list[str]],
    corpus: str,
    storage: str,
    beside: Mapping[str, Any],
) -> DataParallelTrainer:
    options = ray.data.ExecutionOptions(preserve_order=True)
    again = train.FailureConfig(max_failures=resources.restarts)
    return DataParallelTrainer(
        loop,
        backend_config=backend(resources.joined),
        train_loop_config=given,
        scaling_config=train.ScalingConfig(
            num_workers=resources.workers_per_brood,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=resources.worker(),
            placement_strategy=resources.placement,
        ),
        run_config=train.RunConfig(
            name=f"brood-{given['brood']}",
            storage_path=storage,
            failure_config=again,
        ),
        datasets={**{group: open_dataset(Store(corpus), names) for group, names in files.items()}, **beside},
        # every worker reads whole groups by itself: a split would tie workers to one another's epochs
        dataset_config=train.DataConfig(datasets_to_split=[], execution_options=options),
    )


def leaving() -> bool:
    """Say whether the brood is to lose a node; all of its workers have to ask, and equally often."""
    return train.get_preemption_info() is not None
