"""The command `shoal`. Exit codes: 0 done, 1 the run failed, 2 unusable input, 128 + N ended by signal N."""

import os
import shlex
import sys
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from shoal.cluster import ending
from shoal.cluster.errors import NoRay
from shoal.cluster.storage import BrokenFile, CannotWrite, Store
from shoal.search import notation, traces
from shoal.search.errors import InputError, Interrupted, RunFailed
from shoal.search.front import commands
from shoal.search.front.commands import ChangesArgument, DirectoryArgument, FileArgument
from shoal.search.front.completion import complete_directory
from shoal.search.load import load_run
from shoal.search.output import write_document
from shoal.search.platform import job_commands, platform_commands
from shoal.search.records import directory
from shoal.search.runs.kinds import runner
from shoal.search.signals import well_ended

app = typer.Typer(
    name="shoal",
    help="Train populations of models on Ray: the best are copied, varied and trained on.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
console = Console()
errors = Console(stderr=True)

MemberOption = Annotated[int | None, typer.Option(help="Which member; the best one by default.")]


class Resume(StrEnum):
    never = "never"
    auto = "auto"
    must = "must"


@app.command(epilog="Example: shoal run examples/demo.yaml population.members=4")
def run(
    file: FileArgument,
    changes: ChangesArgument = None,
    baseline: Annotated[
        bool,
        typer.Option("--baseline", help="Also train it without exploits, and with equal shares."),
    ] = False,
    resume: Annotated[
        Resume,
        typer.Option(help="If the directory holds the run: never go on, go on, or refuse to begin anew."),
    ] = Resume.never,
) -> None:
    """Train what a file describes, a population by default, and write its run directory."""
    settings = load_run(file, changes or [])
    runner(settings.kind).run_new(settings, console, baseline, resume.value)


@app.command(epilog="Example: shoal resume runs/demo")
def resume(path: DirectoryArgument) -> None:
    """Continue a run that was stopped or killed, from its last checkpoint."""
    settings, _ = directory.open_run(path)
    runner(settings.kind).run_on(path, console)


@app.command(epilog="Example: shoal validate examples/demo.yaml training.steps=1000")
def validate(
    file: FileArgument,
    changes: ChangesArgument = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Also make a member here: train a step, score, save and load it."),
    ] = False,
) -> None:
    """Check a file without running it, and print the resolved configuration."""
    from shoal.search.load import dump, left_to_do

    settings = load_run(file, changes or [])
    write_document(dump(settings))
    if missing := left_to_do(settings):
        errors.print(f"note: {missing}", highlight=False, soft_wrap=True, markup=False)
    if dry_run:
        from shoal.search.runs.dry import try_out

        try_out(settings, errors)


@app.command(epilog="Example: shoal corpus examples/demo.yaml data.megabytes=16")
def corpus(file: FileArgument, changes: ChangesArgument = None) -> None:
    """Build the corpus that a run reads: tokenised, packed and split Parquet with a manifest."""
    from shoal.search.runs.population import show_corpus

    show_corpus(load_run(file, changes or []), console)


@app.command(epilog="Example: shoal select examples/demo.yaml")
def select(
    file: FileArgument,
    changes: ChangesArgument = None,
    explain: Annotated[int | None, typer.Option(help="Say why the row of this id was chosen or not.")] = None,
) -> None:
    """Choose the rows of a corpus that are worth training on, as the file's `selection:` says."""
    from shoal.search.runs.select import show_selection

    show_selection(load_run(file, changes or []), console, explain)


@app.command(epilog="Example: shoal report runs/demo")
def report(path: DirectoryArgument) -> None:
    """Draw the run as one HTML file that opens offline."""
    from shoal.search.report.write import write_report

    _, store = directory.open_run(path)
    console.print(f"report: {write_report(store)}", highlight=False, soft_wrap=True)


@app.command(epilog="Example: shoal export runs/demo --member 3 --to exported/")
def export(
    path: DirectoryArgument,
    member: MemberOption = None,
    student: Annotated[str | None, typer.Option(help="A student of a distill run, by name.")] = None,
    to: Annotated[str | None, typer.Option(help="Where to; DIR/best or DIR/students/NAME by default.")] = None,
    merge: Annotated[bool, typer.Option(help="Add an adapter to the weights of its base.")] = False,
) -> None:
    """Write a member's weights, or a student's, as safetensors with a JSON config beside them."""
    settings, store = directory.open_run(path)
    if student is not None:
        from shoal.search.distill.export import export_student

        folder = export_student(settings, store, student, Store(to) if to else None)
        console.print(f"exported: {folder}/model.safetensors", highlight=False, soft_wrap=True)
        return
    file = directory.export_member(settings, store, member, Store(to) if to else None, merge)
    console.print(f"exported: {file}", highlight=False, soft_wrap=True)


@app.command(epilog="Example: shoal schedule runs/demo > schedule.yaml")
def schedule(path: DirectoryArgument, member: MemberOption = None) -> None:
    """Print a member's hyperparameters over the steps, as YAML: a run's file takes it as it stands."""
    from shoal.search.runs.replay import lineage_of, schedule_entries

    settings, store = directory.open_run(path)
    _, segments = lineage_of(settings, store, member)
    write_document(notation.write_yaml({"schedule": schedule_entries(segments)}))


@app.command(epilog="Example: shoal replay runs/demo --member 3")
def replay(path: DirectoryArgument, member: MemberOption = None) -> None:
    """Train one model along the schedule of a member's lineage, into DIR/replay/MEMBER."""
    from shoal.search.runs import replay as replaying

    replaying.replay_lineage(path, member, console)


@app.command(epilog="Example: shoal status runs/demo")
def status(
    path: Annotated[
        str | None,
        typer.Argument(
            help="Run directory or job id; all of runs/ by default.",
            metavar="[DIR|JOB]",
            autocompletion=complete_directory,
        ),
    ] = None,
    address: job_commands.Address = None,
) -> None:
    """Say how far a run is, or every run in runs/, or how a job stands."""
    elsewhere = address or os.environ.get("RAY_API_SERVER_ADDRESS")
    if path and elsewhere and not ("/" in path or os.path.exists(path)):
        from shoal.search.platform import jobs

        jobs.print_status(path, address, console)
        return
    paths = [path] if path else runs_here()
    if not paths:
        raise InputError("runs/ holds no run: name a run directory.")
    table = Table(box=None, pad_edge=False)
    for name in ("run", "status", "step", "best", "member", "exploits"):
        table.add_column(name)
    broken: list[str] = []
    stopped: list[str] = []
    for place in paths:
        try:
            row = directory.state_of(place)
            table.add_row(*row)
            stopped += [place] if row[1] == "stopped" else []
        except (InputError, BrokenFile) as error:
            if path:
                raise
            table.add_row(os.path.basename(place), "cannot be read")
            broken.append(str(error))
    console.print(table)
    for place in stopped:
        line = f"{place}: stopped, since its driver is gone; go on with `shoal resume {shlex.quote(place)}`"
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    for line in broken:
        errors.print(line, style="red", highlight=False, soft_wrap=True, markup=False)
    if path and (job := directory.job_of(path)):
        console.print(f"job {job['job']}, submitted at {job['address']}", highlight=False, soft_wrap=True)


example = "Example: shoal {} --address http://127.0.0.1:8265"
app.command("submit", epilog=example.format("submit examples/toy.yaml directory=/runs/toy"))(
    job_commands.submit_command
)
app.command("stop", epilog=example.format("stop toy-1f2e3d4c"))(job_commands.stop_command)
app.command("logs", epilog=example.format("logs --follow /runs/toy"))(job_commands.logs_command)
app.command("top", epilog="Example: shoal top runs/demo")(job_commands.top_command)
commands.register(app)
app.add_typer(platform_commands.k8s, name="k8s")
app.add_typer(platform_commands.grafana, name="grafana")


def runs_here() -> list[str]:
    if not os.path.isdir("runs"):
        return []
    found = sorted(os.scandir("runs"), key=lambda entry: entry.name)
    return [entry.path for entry in found if os.path.exists(f"{entry.path}/{directory.SETTINGS}")]


def run_command_line() -> None:
    """Run the command line; a mistake of the user's is one message without a stack trace."""
    with well_ended():
        try:
            app()
        except (InputError, NoRay) as error:
            sys.exit(report_error("error", error, 2))
        except BrokenFile as error:
            sys.exit(report_error("error", InputError(f"{error}. {directory.way_out(error)}"), 2))
        except Interrupted as error:
            sys.exit(report_error("interrupted", error, 130))
        except RunFailed as error:
            sys.exit(report_error("failed", error, 1))
        except Exception as error:  # a fault in Shoal itself or in a library
            sys.exit(report_error("failed", error, 1))


def report_error(kind: str, error: Exception, code: int) -> int:
    said, trace = str(error), getattr(error, "trace", "")
    if kind == "interrupted":
        ending.set_last_line(f"{kind}: {said}")
    if not isinstance(error, InputError | RunFailed | NoRay | CannotWrite):
        said, trace = f"{traces.in_one_line(traces.trace_of(error))}.", traces.trace_of(error)
    if trace:
        said = f"{said.rstrip('.')}. {traces.keep_trace(trace)}"
    errors.print(f"{kind}: {said}", style="red", highlight=False, soft_wrap=True, markup=False)
    return code
