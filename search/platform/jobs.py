"""What `shoal submit`, `stop`, `logs` and `status` do with Ray jobs."""

import contextlib
import shlex
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from shoal.cluster import jobs
from shoal.cluster.package import PackageTooLarge, files, pack_folder
from shoal.cluster.storage import Store
from shoal.cluster.this_job import ADDRESS, DIRECTORY
from shoal.search.config.places import refuse_variables
from shoal.search.config.run import Run
from shoal.search.errors import InputError, Interrupted, RunFailed
from shoal.search.load import load_run, load_values
from shoal.search.records import directory

LOST_SECONDS = 300.0  # a job is given up if its head is away for longer
FINAL_EXIT_CODES = (1, 2, 130)  # the command itself ends with these, so another try would end the same way


@dataclass(frozen=True)
class Submission:
    """A run to submit as a job, and the address to submit it to."""

    file: str
    changes: Sequence[str]
    address: str | None
    folder: Path  # it is sent with the job as its working directory
    retries: int = 3
    metadata: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)  # the driver reserves them
    runtime_env: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's place in the working directory, which is where the job finds it."""
        try:
            name = Path(self.file).resolve().relative_to(self.folder.resolve()).as_posix()
        except ValueError:
            raise InputError(
                f"{self.file}: must lie in the working directory that the job is sent with, {self.folder}; "
                f"name another with --working-dir."
            ) from None
        if name not in files(self.folder):
            raise InputError(f"{self.file}: an ignore file of {self.folder} keeps it from being sent.")
        return name

    @property
    def command(self) -> str:
        return shlex.join(["python", "-m", "shoal", "run", self.name, *self.changes, "--resume", "auto"])


def submit_run(wanted: Submission, console: Console, wait: bool) -> None:
    """Submit a run as a job; follow it to its end, and submit it again when its driver dies."""
    run = load_run(wanted.file, wanted.changes)
    check_places(load_values(wanted.file, wanted.changes))
    wanted.name  # noqa: B018 - an error in it is raised before the network is used
    with one_line_errors():
        client = jobs.job_client(wanted.address)
    job = send(client, run, wanted)
    print_plain(console, f"job {job}: submitted, see {link(client, job)}")
    if not wait:
        named = shlex.quote(job)
        print_plain(console, f"follow it with `shoal logs --follow {named}`, stop it with `shoal stop {named}`")
        return
    for left in range(wanted.retries, -1, -1):
        ended = watch(client, job, console)
        if ended is not None and (ended.status != "FAILED" or ended.driver_exit_code in FINAL_EXIT_CODES):
            break
        if not left:
            break
        reason = "was lost with the head" if ended is None else "its driver died"
        print_plain(console, f"job {job}: {reason}; submitting it again, {left} tries left")
        job = send(client, run, wanted)
    conclude(job, ended)


def check_places(values: Mapping[str, Any]) -> None:
    """Raise InputError for places that have a meaning only in this machine's working folder."""
    data = values.get("data") or {}
    places = {"directory": values.get("directory")}
    if data.get("groups"):
        places["data.corpus"] = data.get("corpus")
        places |= {f"data.groups.{name}": place for name, place in data["groups"].items()}
    for key, place in places.items():
        refuse_variables(key, place)
        if place == "installed" or (place and ("://" in place or place.startswith("/"))):
            continue
        raise InputError(
            f"{key}: a job needs a place that every node of the cluster sees: an absolute path on shared "
            f"storage or a URI, such as {key}=s3://bucket/{key.rpartition('.')[2]}, got {place!r}."
        )


def send(client: jobs.JobSubmissionClient, run: Run, wanted: Submission) -> str:
    metadata = {
        "name": run.name,
        **wanted.metadata,
        DIRECTORY: run.directory,
        ADDRESS: client.get_address(),
    }
    with tempfile.TemporaryDirectory() as folder, one_line_errors(), jobs.answering(client.get_address()):
        package = Path(folder) / "working-dir.zip"
        try:
            pack_folder(wanted.folder, package)
        except PackageTooLarge as error:
            raise InputError(f"--working-dir: {error}") from error
        environment = {**wanted.runtime_env, "working_dir": str(package)}
        job = f"{run.name}-{uuid.uuid4().hex[:8]}"
        return jobs.submit(client, job, wanted.command, environment, metadata, wanted.resources)


def watch(client: jobs.JobSubmissionClient, job: str, console: Console) -> Any:
    """Print the job's log until it ends, and return its details; None if it was lost with the head.

    If the head is away, wait for it to come back; raises RunFailed if that takes too long.
    """
    seen, lost = 0, 0.0  # characters printed, and the time when the head went away

    def write(text: str) -> None:
        nonlocal seen, lost
        seen, lost = seen + len(text), 0.0
        console.print(text, end="", highlight=False, soft_wrap=True, markup=False)

    while True:
        try:
            return jobs.follow_job(client, job, write, seen)
        except ConnectionError as error:
            if not lost:
                print_plain(
                    console, f"job {job}: lost the head ({error}); trying again for {LOST_SECONDS:.0f} s"
                )
            lost = lost or time.monotonic()
            if time.monotonic() > lost + LOST_SECONDS:
                raise RunFailed(f"{job}: the head does not answer: {error}. {how_to_follow(job)}") from error
            time.sleep(jobs.SECONDS_BETWEEN_JOB_LOOKS)
            if came_back_without(client, job):
                return None
        except KeyboardInterrupt as error:
            raise Interrupted(f"job {job} goes on without you. {how_to_follow(job)}") from error


def came_back_without(client: jobs.JobSubmissionClient, job: str) -> bool:
    """Say whether the head answers again, but with no memory of the job."""
    try:
        return jobs.details(client, job) is None
    except (OSError, RuntimeError):
        return False


def conclude(job: str, ended: Any) -> None:
    if ended is None:
        raise RunFailed(f"job {job} was lost with its cluster's head. Submit it again to continue the run.")
    if ended.status == "STOPPED":
        raise RunFailed(f"job {job} was stopped. Submit it again to continue the run.")
    if ended.status == "FAILED" and ended.driver_exit_code == 2:
        raise InputError(f"job {job} refused its input; its log says why.")
    if ended.status == "FAILED":
        reason = (ended.message or "no reason given").strip().splitlines()[0].partition(", last available")[0]
        raise RunFailed(f"job {job} failed: {reason}. Its log has the rest; submit it again to go on.")


def stop_job(target: str, address: str | None, console: Console) -> None:
    """Stop a job named by its id or its run directory; the run can be continued."""
    client, job = found(target, address)
    with one_line_errors():
        status = jobs.stop(client, job)
    print_plain(console, f"job {job}: {status}. Submit it again to continue the run.")


def print_logs(target: str, address: str | None, console: Console, follow: bool) -> None:
    """Print a job's log so far, or until it ends."""
    client, job = found(target, address)
    if follow:
        conclude(job, watch(client, job, console))
        return
    with one_line_errors():
        console.print(client.get_job_logs(job), end="", highlight=False, soft_wrap=True, markup=False)


def print_status(target: str, address: str | None, console: Console) -> None:
    """Say what the cluster knows of a job."""
    client, job = found(target, address)
    with one_line_errors():
        known = jobs.details(client, job)
    assert known is not None
    lasted = ((known.end_time or time.time() * 1000) - (known.start_time or time.time() * 1000)) / 1000
    print_plain(console, f"job {job}: {known.status}, {lasted:.0f} s, see {link(client, job)}")
    print_plain(console, f"  run directory {(known.metadata or {}).get(DIRECTORY, '?')}")
    if known.message:
        print_plain(console, f"  {known.message.strip().splitlines()[0]}")


def found(target: str, address: str | None) -> tuple[jobs.JobSubmissionClient, str]:
    """Return a client and the id of a job that is named by its id or by its run directory."""
    noted = noted_job(target)
    with one_line_errors():
        client = jobs.job_client(address or noted.get("address") or None)
        job = noted.get("job") or (jobs.find(client, directory_of(target)) if is_directory(target) else target)
        known = job is not None and jobs.details(client, job) is not None
    if job is None or not known:
        raise InputError(f"{target}: {client.get_address()} knows no such job.")
    return client, job


def is_directory(target: str) -> bool:
    return "/" in target or Path(target).exists()


def directory_of(target: str) -> str:
    return Store(target).uri if "://" in target else str(Path(target).expanduser().resolve())


def noted_job(target: str) -> dict[str, str]:
    """Return the job that a run directory names, if the directory can be read from here."""
    if not is_directory(target):
        return {}
    try:
        noted = directory.job_of(target)
        if not noted and directory.holds_run(target):
            raise InputError(f"{target} was not run as a job: stop it with Ctrl-C, see it with `shoal status`.")
        return noted
    except OSError:
        return {}  # only the cluster may read this bucket, and its job server knows the directory


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors of the connection or of the job server into InputError or RunFailed with one line."""
    try:
        yield
    except jobs.Unreachable as error:
        raise InputError(f"--address: {error}") from error
    except (RunFailed, InputError):
        raise
    except RuntimeError as error:
        raise RunFailed(f"the job server says: {str(error).splitlines()[0]}") from error


def link(client: jobs.JobSubmissionClient, job: str) -> str:
    return f"{client.get_address()}/#/jobs/{job}"


def how_to_follow(job: str) -> str:
    job = shlex.quote(job)
    return f"See it with `shoal status {job}`, follow it with `shoal logs --follow {job}`."


def print_plain(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
