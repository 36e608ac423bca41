"""Broods on Ray: one Tune trial a brood, one Ray Train worker group a trial, resident for the whole run.

Tune decides, but never starts or stops anything for an exploit: a trial only carries its workers'
reports to Tune. They take the mailbox and not `ray.train.report`, which waits for the Train
controller's next poll.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import train, tune
from ray.train.backend import Backend
from ray.train.torch import TorchConfig, TorchTrainer

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
    restarts: int  # of a brood that lost a worker; losses that were announced do not count
    placement: str = "PACK"  # of a brood's workers, as Ray's placement groups know it
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


class Apart(TorchConfig):
    """Workers without torch's process group: it would listen on every address of the machine."""

    @property
    def backend_cls(self) -> type[Backend]:
        return Backend


def brood_trial(
    loop: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    exchange: Any,
    resources: BroodResources,
    files: Mapping[str, list[str]],  # group -> Parquet files, in the order of the first epoch
    corpus: str,
    storage: str,
    beside: Mapping[str, Any],  # further datasets, by name
) -> Any:
    """Return the Tune trainable of one brood: it trains `loop` on Train workers and passes reports on."""

    # a class: a function's reports would change threads twice more on their way
    class Brood(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.brood = config["brood"]
            self.failure: BaseException | None = None
            self.over = False
            trainer = _trainer(loop, settings, exchange, resources, files, corpus, storage, beside, self.brood)
            threading.Thread(target=self.fit, args=(trainer,), daemon=True).start()

        def fit(self, trainer: TorchTrainer) -> None:
            try:
                trainer.fit()
            except BaseException as error:  # raised again below, in the thread that Tune watches
                self.failure = error
            finally:
                ray.get(exchange.report.remote(self.brood, None))

        def step(self) -> dict[str, Any]:
            """Wait for messages; Tune hears of the last ones before it hears of the end."""
            messages = [] if self.over else ray.get(exchange.next_reports.remote(self.brood))
            self.over = self.over or None in messages
            told = [message for message in messages if message is not None]
            if self.over and not told and self.failure is not None:
                raise self.failure
            return {"messages": told, "done": self.over and not told}

    return tune.with_resources(Brood, tune.PlacementGroupFactory([bookkeeping()]))


def _trainer(
    loop: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    exchange: Any,
    resources: BroodResources,
    files: Mapping[str, list[str]],
    corpus: str,
    storage: str,
    beside: Mapping[str, Any],
    brood: int,
) -> TorchTrainer:
    options = ray.data.ExecutionOptions(preserve_order=True)
    again = train.FailureConfig(max_failures=resources.restarts)
    return TorchTrainer(
        loop,
        torch_config=TorchConfig() if resources.joined else Apart(),
        train_loop_config={**settings, "brood": brood, "exchange": exchange},
        scaling_config=train.ScalingConfig(
            num_workers=resources.workers_per_brood,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=resources.worker(),
            placement_strategy=resources.placement,
        ),
        run_config=train.RunConfig(
            name=f"brood-{brood}",
            storage_path=storage,
            failure_config=again,
        ),
        datasets={**{group: open_dataset(Store(corpus), names) for group, names in files.items()}, **beside},
        # every worker reads whole groups by itself: a split would tie workers to one another's epochs
        dataset_config=train.DataConfig(datasets_to_split=[], execution_options=options),
    )


def send_home(exchange: Any, broods: int) -> None:
    """End all trials where they wait; Ray takes down what they had started."""
    ray.get([exchange.report.remote(brood, None) for brood in range(broods)])


def leaving() -> bool:
    """Say whether the brood is to lose a node; all of its workers have to ask, and equally often."""
    return train.get_preemption_info() is not None


def next_orders(exchange: Any, brood: int, round_: int, message: Any = None) -> Any:
    """Report, if there is a message, and wait until the round is decided."""
    return ray.get(exchange.take_orders.remote(round_, brood, message))


def report_round(exchange: Any, brood: int, round_: int, message: Any) -> ray.ObjectRef:
    """Report without waiting; `goes_on` takes what this returns."""
    return exchange.hear.remote(round_, brood, message)


def goes_on(answer: ray.ObjectRef) -> bool:
    """Wait until a round that was reported is answered, and say whether the run goes on."""
    return bool(ray.get(answer))


def decided(exchange: Any) -> int | None:
    """Return the last round that was decided since the driver's start, if there is one."""
    return ray.get(exchange.decided.remote())


def send_report(exchange: Any, brood: int, message: Any) -> None:
    ray.get(exchange.report.remote(brood, message))


def direct_way(sample: Any, wanted: bool | None) -> bool:
    """Say whether tensors like this one go straight from memory to memory, which needs NIXL.

    Raises RuntimeError where it is wanted and not to be had. By default only what is on a GPU goes so.
    """
    if wanted is False or (wanted is None and sample.device.type == "cpu"):
        return False
    try:
        ray.put(sample, _tensor_transport="nixl")
    except Exception as error:  # whatever is missing, Ray and NIXL say it in many ways
        if wanted:
            raise RuntimeError(
                f"cluster.direct: needs NIXL on every worker; install shoal[direct] there. It said: {error}"
            ) from error
        return False
    return True


def post_weights(exchange: Any, key: tuple[int, ...], state: Any, direct: bool = False) -> None:
    """Post where a snapshot is, under (round, member, which part of it): in the object store, or where it was.

    With `direct` its tensors stay in this worker's memory, and who takes them reads them there.
    """
    reference = ray.put(state, _tensor_transport="nixl") if direct else ray.put(state)
    ray.get(exchange.post_weights.remote(key, [reference]))


def take_weights(exchange: Any, key: tuple[int, ...]) -> Any:
    """Wait for the donor's weights; if its worker died with them, until it is back and posts them again."""
    while True:
        reference = ray.get(exchange.take_weights.remote(key))
        try:
            return ray.get(reference[0])
        except (ray.exceptions.ObjectLostError, ray.exceptions.RayDirectTransportError):
            ray.get(exchange.forget_weights.remote(key, reference))


def publish(exchange: Any, brood: int, rows: Sequence[dict[str, Any]], states: Mapping[int, Any]) -> None:
    """Report and put the members' states into the object store, without waiting for an answer."""
    rounds = {row["member"]: row["round"] for row in rows}
    weights = {member: [ray.put(state)] for member, state in states.items()}
    exchange.publish.remote(brood, {"reports": list(rows)}, rounds, weights)


def next_verdicts(exchange: Any, known: Mapping[int, int]) -> Any:
    return ray.get(exchange.take_verdicts.remote(dict(known)))


def fetch(reference: Sequence[ray.ObjectRef]) -> Any:
    """Return a published state, or None where it was lost with the worker that had put it."""
    try:
        return ray.get(reference[0]) if reference else None
    except ray.exceptions.ObjectLostError:
        return None
