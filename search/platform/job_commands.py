"""The commands for jobs on a Ray cluster: `submit`, `stop` and `logs`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from shoal.search.errors import InputError
from shoal.search.output import screen

Address = Annotated[
    str | None,
    typer.Option(help="The head's job server, http://HEAD:8265; by default RAY_API_SERVER_ADDRESS."),
]
Target = Annotated[str, typer.Argument(help="Job id, or run directory.", metavar="JOB|DIR")]


def submit_command(
    file: Annotated[str, typer.Argument(help="YAML file of the run.", metavar="FILE")],
    changes: Annotated[
        list[str] | None, typer.Argument(help="Changes to it.", metavar="[key=value ...]")
    ] = None,
    address: Address = None,
    working_dir: Annotated[
        Path, typer.Option(help="Folder to send with the job, without ignored files.")
    ] = Path(),
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return once the job is submitted.")] = False,
    retries: Annotated[int, typer.Option(min=0, help="How often to submit it again when the driver dies.")] = 3,
    cpus: Annotated[float, typer.Option(min=0, help="CPUs that the driver reserves.")] = 0.0,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs that the driver reserves.")] = 0.0,
    resource: Annotated[
        list[str] | None, typer.Option(metavar="NAME=AMOUNT", help="Another resource that the driver reserves.")
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Stored with the job on the cluster.")
    ] = None,
    runtime_env: Annotated[
        Path | None, typer.Option(help="YAML file of Ray's runtime environment: env_vars, pip and so on.")
    ] = None,
) -> None:
    """Send a run to a Ray cluster as a job and follow it. If it is sent again, it goes on where it was."""
    from shoal.search.platform import jobs

    given = {name: resource_amount(name, value) for name, value in pairs("--resource", resource or [])}
    reserved = {"CPU": cpus, "GPU": gpus, **given}
    wanted = jobs.Submission(
        file=file,
        changes=changes or [],
        address=address,
        folder=working_dir,
        retries=retries,
        metadata=dict(pairs("--metadata", metadata or [])),
        resources={name: value for name, value in reserved.items() if value},
        runtime_env=environment(runtime_env),
    )
    jobs.submit_run(wanted, screen(), not no_wait)


def stop_command(target: Target, address: Address = None) -> None:
    """Stop a job; its run can be continued."""
    from shoal.search.platform import jobs

    jobs.stop_job(target, address, screen())


def logs_command(
    target: Target,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", help="Keep printing until the job ends.")] = False,
) -> None:
    """Print what a job has printed."""
    from shoal.search.platform import jobs

    jobs.print_logs(target, address, screen(), follow)


def top_command(
    target: Target,
    address: Address = None,
    once: Annotated[bool, typer.Option("--once", help="Print the present state and return.")] = False,
) -> None:
    """Watch a running population: members, scores, copies, speed and time left."""
    from shoal.search.platform.top import watch_run

    watch_run(target, address, screen(), once)


def pairs(option: str, given: Sequence[str]) -> list[tuple[str, str]]:
    found = [(name, sign, value) for name, sign, value in (each.partition("=") for each in given)]
    for name, sign, value in found:
        if not (name and sign):
            raise InputError(f"{option}: must be written name=value, got {name}{sign}{value}.")
    return [(name, value) for name, _, value in found]


def resource_amount(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--resource: {name} must be a number, got {text}.") from None


def environment(path: Path | None) -> dict[str, object]:
    """Read the file of a runtime environment; `--working-dir` alone names the working directory."""
    from shoal.search import notation  # which imports yaml

    if path is None:
        return {}
    try:
        read = notation.read_yaml(path.read_text(encoding="utf-8"), f"--runtime-env: {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--runtime-env: {path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(read, dict) or "working_dir" in read:
        raise InputError(f"--runtime-env: {path} must be a mapping without working_dir.")
    return read
