"""Broods come and go with the nodes: when another number of them fits, they begin anew from the checkpoint."""

import threading
from collections.abc import Callable
from types import TracebackType

from shoal.cluster.session import capacity, places, wait_for_room
from shoal.cluster.workers import BroodResources
from shoal.search.config.run import Run
from shoal.search.errors import InputError

AGREEING = 3  # so many looks in a row must agree: a node that only restarts changes nothing
SECONDS_BETWEEN_LOOKS = 10.0
SECONDS_TO_END = 30.0  # a look may take so long


class Regrouped(Exception):
    """The broods were sent home because another number of them finds room now."""

    def __init__(self, before: int, after: int):
        super().__init__(
            f"there is room for {after} broods in place of {before}; going on from the last checkpoint"
        )


class Room:
    """Looks for a change of room beside a run; `fitting` counts the broods that the cluster can hold now."""

    def __init__(self, broods: int, fitting: Callable[[], int], send_home: Callable[[], None]):
        self.broods, self.fitting, self.send_home = broods, fitting, send_home
        self.after = broods
        self.over = threading.Event()

    def __enter__(self) -> "Room":
        self.watching = threading.Thread(target=self._watch, daemon=True)
        self.watching.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        if kind is None:  # Ray ends a process that asks it something when it is shut down
            self.watching.join(SECONDS_TO_END)

    def _watch(self) -> None:
        seen: list[int] = []
        while not self.over.wait(SECONDS_BETWEEN_LOOKS):
            seen = [*seen, self.fitting()][-AGREEING:]
            if len(seen) == AGREEING and len(set(seen)) == 1 and seen[0] != self.broods:
                self.after = seen[0]
                self.send_home()
                return

    def check(self) -> None:
        """Raise Regrouped if the run ended for that."""
        if self.after != self.broods:
            raise Regrouped(self.broods, self.after)


def with_room(run: Run) -> Run:
    """Return the run with as many broods as the cluster has room for, within what its file allows."""
    wait_for_room(asked_for(run).bundles(), run.cluster.patience)
    return of_broods(run, fitting(run))


def fitting(run: Run) -> int:
    """Return the largest number of broods that fit now; the least that the run allows if fewer do."""
    most = run.cluster.broods
    least = min(run.cluster.broods_least or most, most)
    for broods in range(most, least, -1):
        asked = asked_for(of_broods(run, broods))
        if not lacking(asked) and not homeless(asked):
            return broods
    return least


def of_broods(run: Run, broods: int) -> Run:
    return run.model_copy(update={"cluster": run.cluster.model_copy(update={"broods": broods})})


def brood_resources(run: Run) -> BroodResources:
    """Return what each brood asks for; all broods must fit at once, since none waits for another's end."""
    resources = asked_for(run)
    for kind, (needed, had) in lacking(resources).items():
        key = {"CPU": "cluster.cpus_per_worker", "GPU": "cluster.gpus_per_worker"}
        raise InputError(
            f"cluster: {resources.broods} broods need {needed:g} {kind}s at once, but the Ray cluster has "
            f"{had:g}. Lower cluster.broods, workers_per_brood or {key.get(kind, 'cluster.resources')}, "
            f"let it begin with cluster.broods_least, or wait with cluster.patience for the cluster to grow."
        )
    if homeless(resources):
        raise InputError(
            f"cluster: the nodes hold {places(resources.worker())} workers of {resources.worker()}, but "
            f"{resources.broods} broods of {resources.workers_per_brood} are wanted. A worker lives on one "
            f"node: lower what it needs, or cluster.broods."
        )
    return resources


def homeless(resources: BroodResources) -> bool:
    """Say whether workers find no node, although the cluster as a whole has enough."""
    return places(resources.worker()) < resources.broods * resources.workers_per_brood


def asked_for(run: Run) -> BroodResources:
    each = run.cluster
    return BroodResources(
        each.broods,
        run.workers_per_brood,
        each.cpus_per_worker or cpus_for(run, capacity().get("CPU", 0.0)),
        each.gpus_per_worker,
        each.restarts,
        each.placement,
        each.resources,
        each.workers_per_member > 1,
    )


def room_to_grow(run: Run) -> list[dict[str, float]]:
    """Return what an autoscaler is asked for beside a run that may have begun with fewer broods."""
    return asked_for(run).bundles() if run.cluster.broods_least else []


def lacking(resources: BroodResources) -> dict[str, tuple[float, float]]:
    """Return what the cluster has too little of: needed and had, by kind."""
    had = capacity()
    needed = resources.needed()
    return {
        kind: (amount, had.get(kind, 0.0))
        for kind, amount in needed.items()
        if amount > had.get(kind, 0.0) + 1e-9
    }


def cpus_for(run: Run, cpus: float) -> float:
    """Share 60 % of the CPUs among the workers; the rest is for Ray Data's tasks and the trials."""
    share = 0.6 * cpus / (run.cluster.broods * run.workers_per_brood)
    return float(int(share)) if share >= 1 else round(share, 2)
