"""Ray jobs: submitted over HTTP to a cluster's head, followed, stopped and found again."""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import requests
from ray.dashboard.modules.job.pydantic_models import JobDetails
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from shoal.cluster.this_job import DIRECTORY

ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
TOKEN_HELP = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token"
SECONDS_TO_CONNECT = 5.0
SECONDS_TO_GET_READY, NOT_READY = 120.0, "No available agent to submit job"
SECONDS_BETWEEN_JOB_LOOKS = 2.0


class Unreachable(ConnectionError):
    """No Ray head answers at the address, or it does not let us in; one line says which."""


def job_client(address: str | None) -> JobSubmissionClient:
    """Return a client of the job server at `address`, else at RAY_API_SERVER_ADDRESS or RAY_ADDRESS."""
    place = address or next((os.environ[name] for name in ADDRESSES if os.environ.get(name)), None)
    if place is None:
        raise Unreachable("no address: give --address http://HEAD:8265 or set RAY_API_SERVER_ADDRESS.")
    if place.startswith(("http://", "https://")):
        _knock(place)
    # Ray lets RAY_ADDRESS override what it is given here
    os.environ["RAY_API_SERVER_ADDRESS"] = place
    for name in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
    with answering(place):
        return JobSubmissionClient(place)


def _knock(address: str) -> None:
    """Ray's client would wait minutes for a host that is silent."""
    place = urlsplit(address)
    try:
        port = place.port or (443 if place.scheme == "https" else 80)
        socket.create_connection((place.hostname or "", port), SECONDS_TO_CONNECT).close()
    except (OSError, ValueError) as error:
        raise Unreachable(f"no Ray head answers at {address}: {error}.") from error


@contextlib.contextmanager
def answering(address: str) -> Iterator[None]:
    """Turn what can go wrong on the way to the head into one line."""
    try:
        yield
    except AuthenticationError as error:
        wrong = "does not accept this token" if "failed" in str(error) else "asks for a token"
        raise Unreachable(f"the Ray cluster at {address} {wrong}: {TOKEN_HELP}.") from error
    except (ConnectionError, requests.exceptions.RequestException, ValueError) as error:
        said = str(error).splitlines()[0]
        raise Unreachable(f"no Ray head answers at {address}: {said}") from error


def submit(
    client: JobSubmissionClient,
    name: str,
    command: str,
    runtime_env: Mapping[str, Any],
    metadata: Mapping[str, str],
    resources: Mapping[str, float],
) -> str:
    """Submit a command and return the job's id; `resources` are the driver's: CPU, GPU and custom ones."""
    rest = {kind: amount for kind, amount in resources.items() if kind not in ("CPU", "GPU")}
    deadline = time.monotonic() + SECONDS_TO_GET_READY
    while True:
        try:
            return client.submit_job(
                entrypoint=command,
                submission_id=name,
                runtime_env=dict(runtime_env),
                metadata=dict(metadata),
                entrypoint_num_cpus=resources.get("CPU"),
                entrypoint_num_gpus=resources.get("GPU"),
                entrypoint_resources=rest or None,
            )
        except RuntimeError as error:
            # a head that has just begun answers before it can take jobs
            if NOT_READY not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(SECONDS_BETWEEN_JOB_LOOKS)


def details(client: JobSubmissionClient, job: str) -> JobDetails | None:
    """Return what the cluster knows of a job; None if it does not know it."""
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        if "404" in str(error):
            return None
        raise


def find(client: JobSubmissionClient, directory: str) -> str | None:
    """Return the newest job of a run directory, or None."""
    mine = [job for job in client.list_jobs() if (job.metadata or {}).get(DIRECTORY) == directory]
    newest = max(mine, key=lambda job: job.start_time or 0, default=None)
    return newest.submission_id if newest else None


def follow_job(
    client: JobSubmissionClient, job: str, write: Callable[[str], None], seen: int = 0
) -> JobDetails:
    """Write a job's log as it grows, but for its first `seen` characters; return how the job ended.

    Raises ConnectionError when the head goes away.
    """

    async def tail() -> None:
        left = seen
        async for text in client.tail_job_logs(job):
            write(text[left:])
            left = max(0, left - len(text))

    try:
        asyncio.run(tail())
        while True:
            found = details(client, job)
            if found is None:
                raise ConnectionError(f"the cluster has lost job {job}")
            if found.status.is_terminal():
                return found
            time.sleep(SECONDS_BETWEEN_JOB_LOOKS)
    except (RuntimeError, OSError, aiohttp.ClientError) as error:
        raise ConnectionError(str(error) or type(error).__name__) from error


def stop(client: JobSubmissionClient, job: str, seconds: float = 60.0) -> JobStatus:
    """Ask a job to stop and wait until it has; return what became of it."""
    client.stop_job(job)
    deadline = time.monotonic() + seconds
    while True:
        status = client.get_job_status(job)
        if status.is_terminal() or time.monotonic() > deadline:
            return status
        time.sleep(0.5)
