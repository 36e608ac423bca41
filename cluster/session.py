"""Connect to a Ray cluster, or start one in this process's care and stop it at the end."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, services
from ray._private import utils as ray_utils
from ray._private.state import state
from ray.autoscaler.sdk import request_resources
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

from shoal.cluster import ending
from shoal.cluster.address import EMBEDDED, check_address, folder, wanted_address
from shoal.cluster.errors import NoRay
from shoal.cluster.streams import close_streams

# Train's controller looks at its workers once in 2 s by default, which delays the end of a run.
# Tune's loggers would write every report a second and a third time, and it would take Ctrl-C for itself.
# Ray ends idle processes above the number of CPUs after a second, but reading tasks take a part of a CPU
# each: of three on two CPUs the third was started again and again, and a stream stood still for seconds.
ENVIRONMENT = {
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

SECONDS_BETWEEN_ROOM_LOOKS = 2.0
# threads that read are waited for so long, or less where a signal ends the process
# Tune's own record of an experiment, which nobody reads: a full disk is told by who writes the run's records.
UNREAD = ("ray.tune.execution.experiment_state", "ray.tune.tune", "ray.train._internal.syncer")
SECONDS_TO_END, SECONDS_TO_END_NOW = 60.0, 1.0
SECONDS_FOR_ITERATORS = 10.0
# names of Ray Data's threads in this process: an executor's own, and those that ask Ray for its blocks
EXECUTOR, ITERATORS = "StreamingExecutor", ("ray-data-metadata-prefetch", "iter_threaded")
LOOKS_FOR_GROUPS = 6  # looks, half a second apart
CONTROLLER = "TrainController"  # the class of the actor that starts a trial's workers
TOO_LATE = "timed out during startup"  # Ray says so when its processes are late
HEAD_RESOURCE = "node:__internal_head__"  # Ray gives this resource to the head alone


@contextlib.contextmanager
def session(dashboard: bool = False, object_store_bytes: int | None = None) -> Iterator[str]:
    """Yield the dashboard's address, or nothing, on the cluster at `RAY_ADDRESS`, else on an embedded Ray.

    An embedded Ray has a dashboard if it is asked for. It dies with this process, also on SIGKILL; it is
    stopped on the way out, also when a signal ends this process. Raises NoRay where there is none.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in UNREAD:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    address = wanted_address()
    # the dashboard listens on this machine's own address only
    options: dict[str, Any] = {"include_dashboard": dashboard, "dashboard_host": "127.0.0.1"}
    options["object_store_memory"] = object_store_bytes
    if address != EMBEDDED:
        # an embedded Ray inherits the environment; a runtime environment would only cost it fresh processes
        options = {"runtime_env": {"env_vars": {name: os.environ[name] for name in ENVIRONMENT}}}
    else:
        keep_to_this_machine()
    with ending.listening(), apart() as started, ending.last_words(partial(kill, started)):
        try:
            context = connect_ray(address, options, started)
            ending.take_signals()  # Ray prints a trace at SIGTERM otherwise
            yield context.dashboard_url or ""
        finally:
            end_readers(SECONDS_TO_END if not ending.came() else SECONDS_TO_END_NOW)
            before = leaders(started)  # a worker whose raylet has ended is nobody's child any more
            ray.shutdown()
            kill(started, before)


def end_readers(seconds: float) -> None:
    """Wait for the threads that read rows: Ray ends a process that asks it something when it is shut down.

    Ray Data waits for its own threads, but on a machine that is busy not for long enough.
    """
    deadline = time.monotonic() + seconds
    close_streams(seconds)
    for thread in threading.enumerate():
        if thread.name.startswith(EXECUTOR):
            thread.shutdown(force=True)  # type: ignore[attr-defined]
    wait_for_threads(EXECUTOR, deadline)
    # an iterator's threads end after their executor; one that nobody closed never ends, and asks for nothing
    for name in ITERATORS:
        wait_for_threads(name, min(deadline, time.monotonic() + SECONDS_FOR_ITERATORS))


def wait_for_threads(name: str, deadline: float) -> None:
    """Wait until no thread whose name begins like this is alive, or until the deadline."""
    for thread in threading.enumerate():
        if thread.name.startswith(name):
            thread.join(max(0.0, deadline - time.monotonic()))


def connect_ray(address: str, options: dict[str, Any], started: list[subprocess.Popen[bytes]]) -> Any:
    """Connect to the cluster at an address, or start one here; return what Ray says of it.

    Ray waits 30 s for its own processes, the ones in `started`. On a busy machine they may come later, so it is
    started a second time.
    """
    if address == EMBEDDED:
        options["_temp_dir"] = folder()
    else:
        check_address(address)
    try:
        return init_ray(address, options)
    except NoRay as error:
        if address != EMBEDDED or TOO_LATE not in str(error):
            raise
    warnings.warn("Ray's processes were not up in 30 s; it is started again.", RuntimeWarning, stacklevel=2)
    before = leaders(started)
    ray.shutdown()
    kill(started, before)
    started.clear()
    return init_ray(address, options)


def init_ray(address: str, options: dict[str, Any]) -> Any:
    try:
        return ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises many kinds
        said = str(error).strip().splitlines() or [type(error).__name__]
        where = "on this machine" if address == EMBEDDED else f"with the cluster at RAY_ADDRESS={address}"
        raise NoRay(f"Ray cannot be started {where}: {said[0]}") from error


@contextlib.contextmanager
def apart() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Let Ray start its processes in groups of their own, and leave signals to us; yields what it starts.

    A signal to this process's group would otherwise end an embedded Ray first, and a driver that asks a head
    that is gone waits for a minute.
    """
    started: list[subprocess.Popen[bytes]] = []
    plain, theirs = services.ConsolePopen, ray_utils.set_sigterm_handler

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(plain(*arguments, **options, process_group=0))
        return started[-1]

    if sys.platform.startswith("linux"):  # elsewhere Ray ends them by the group that they share with us
        setattr(services, "ConsolePopen", start)  # noqa: B010
    ray_utils.set_sigterm_handler = lambda handler: None
    try:
        yield started
    finally:
        setattr(services, "ConsolePopen", plain)  # noqa: B010
        ray_utils.set_sigterm_handler = theirs


def kill(started: Sequence[subprocess.Popen[bytes]], before: Set[int] = frozenset()) -> None:
    """End Ray's processes, those that they have started, and earlier leaders of groups, without asking them."""
    for leader in leaders(started) | before:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)


def leaders(started: Sequence[subprocess.Popen[bytes]]) -> set[int]:
    """Return Ray's processes and those that they have started: each of Ray's workers leads a group of its own.

    What a raylet has started would take a minute to notice that it is gone.
    """
    heads = {process.pid for process in started}
    return heads | {child for child, parent in parents().items() if parent in heads}


def parents() -> dict[int, int]:
    """Return each process of this machine with the one that started it."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found[int(file.parent.name)] = int(file.read_text("utf-8", "replace").rpartition(")")[2].split()[1])
    return found


def keep_to_this_machine() -> None:
    """Let an embedded Ray listen on 127.0.0.1 alone.

    On Linux it would take every address of the machine, since others might join; on macOS and Windows, where
    Ray forms no clusters, it does not. What says so is read when Ray is imported, here and in its processes.
    """
    os.environ.setdefault(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, "0")
    ray_constants.ENABLE_RAY_CLUSTER = False


def bookkeeping() -> dict[str, float]:
    """Return the resources of an actor that only keeps books: on a cluster those of the driver's head node.

    A worker node that is lost then takes members with it, but not what would bring them back.
    """
    mine = [node for node in ray.nodes() if node["NodeID"] == ray.get_runtime_context().get_node_id()]
    if wanted_address() != EMBEDDED and HEAD_RESOURCE in mine[0]["Resources"]:
        return {HEAD_RESOURCE: 0.001}
    return {"CPU": 0.05}


def clear_away(seconds: float = 60.0) -> None:
    """Free the room that this driver's placement groups still hold.

    A trial that is ended takes its workers with it, but what holds their room is freed by a helper of
    Ray Train's, which needs seconds and does not always succeed. A trial's controller would take room
    again, so it must be gone first; and a group that was asked for, or is on its way to another node, may
    come about when its controller is gone. So none must be seen for some looks.
    """
    mine, deadline = ray.get_runtime_context().get_job_id(), time.monotonic() + seconds
    clean = 0
    while clean < LOOKS_FOR_GROUPS and time.monotonic() < deadline:
        actors = state.actor_table(None, ray.JobID(bytes.fromhex(mine)), "ALIVE").values()
        busy = any(actor["ActorClassName"] == CONTROLLER for actor in actors)
        table = placement_group_table().items()
        left = [name for name, group in table if name.endswith(mine) and group["state"] != "REMOVED"]
        for name in () if busy else left:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))
        clean = 0 if busy or left else clean + 1
        time.sleep(0.5)


def capacity() -> dict[str, float]:
    """Return what the whole cluster has: CPUs, GPUs, bytes of memory and object store."""
    return dict(ray.cluster_resources())


def places(worker: Mapping[str, float]) -> int:
    """Return how many such workers the nodes hold: each lives on one node, whatever the whole cluster has."""
    wanted = {kind: amount for kind, amount in worker.items() if amount}
    if not wanted:
        return sys.maxsize
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    each = [min(has.get(kind, 0.0) / amount for kind, amount in wanted.items()) for has in nodes]
    return sum(int(times + 1e-9) for times in each)


@contextlib.contextmanager
def asking_for(bundles: Sequence[Mapping[str, float]]) -> Iterator[None]:
    """Let the autoscaler make room for these bundles meanwhile.

    Ray keeps a request until another replaces it, also after its driver's end: nodes would never be idle.
    """
    if bundles:
        request_resources(bundles=[dict(bundle) for bundle in bundles])
    try:
        yield
    finally:
        if bundles:
            request_resources(bundles=[])


def wait_for_room(bundles: Sequence[Mapping[str, float]], seconds: float) -> None:
    """Ask the autoscaler for room for these bundles, and give the cluster a time to make it."""
    if not seconds:
        return
    deadline = time.monotonic() + seconds
    needed: dict[str, float] = {}
    for bundle in bundles:
        needed = {kind: needed.get(kind, 0.0) + bundle.get(kind, 0.0) for kind in {*needed, *bundle}}
    with asking_for(bundles):
        while any(amount > capacity().get(kind, 0.0) for kind, amount in needed.items()):
            if time.monotonic() > deadline:
                return
            time.sleep(SECONDS_BETWEEN_ROOM_LOOKS)
