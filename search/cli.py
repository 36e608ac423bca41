"""The command `shoal`. Exit codes: 0 done, 1 the run failed, 2 unusable input, 128 + N ended by signal N."""

import os
import shlex
import sys
import warnings
from enum import StrEnum
from typing import Annotated

import typer

from shoal.cluster import ending
from shoal.cluster.errors import NoRay
from shoal.search import traces
from shoal.search.errors import InputError, Interrupted, RunFailed
from shoal.search.front import commands
from shoal.search.front.commands import ChangesArgument, DirectoryArgument, FileArgument
from shoal.search.front.completion import complete_directory
from shoal.search.output import print_plainly, quick_imports, screen, warning_in_one_line, write_document
from shoal.search.platform import job_commands, platform_commands
from shoal.search.runs.kinds import runner
from shoal.search.signals import well_ended

app = typer.Typer(
    name="shoal",
    help="Train populations of models on Ray: the best are copied, varied and trained on.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
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
    from shoal.search.load import load_run

    settings = load_run(file, changes or [])
    runner(settings.kind).run_new(settings, screen(), baseline, resume.value)


@app.command(epilog="Example: shoal resume runs/demo")
def resume(path: DirectoryArgument) -> None:
    """Continue a run that was stopped or killed, from its last checkpoint."""
    from shoal.search.records import directory

    settings, _ = directory.open_run(path)
    runner(settings.kind).run_on(path, screen())


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
    with quick_imports():
        from shoal.search.load import dump, left_to_do, load_run

    settings = load_run(file, changes or [])
    write_document(dump(settings))
    if missing := left_to_do(settings):
        print_plainly(f"note: {missing}", stderr=True)
    if dry_run:
        from shoal.search.runs.dry import try_out

        try_out(settings, screen(stderr=True))


@app.command(epilog="Example: shoal corpus examples/demo.yaml data.megabytes=16")
def corpus(file: FileArgument, changes: ChangesArgument = None) -> None:
    """Build the corpus that a run reads: tokenised, packed and split Parquet with a manifest."""
    from shoal.search.load import load_run
    from shoal.search.runs.population import show_corpus

    show_corpus(load_run(file, changes or []), screen())


@app.command(epilog="Example: shoal select examples/demo.yaml")
def select(
    file: FileArgument,
    changes: ChangesArgument = None,
    explain: Annotated[int | None, typer.Option(help="Say why the row of this id was chosen or not.")] = None,
) -> None:
    """Choose the rows of a corpus that are worth training on, as the file's `selection:` says."""
    from shoal.search.load import load_run
    from shoal.search.runs.select import show_selection

    show_selection(load_run(file, changes or []), screen(), explain)


@app.command(epilog="Example: shoal refine refine.yaml")
def refine(file: FileArgument, changes: ChangesArgument = None) -> None:
    """Train in rounds, between which a class of yours rewrites rows that are hard, alone or rated low."""
    from shoal.search.load import load_run
    from shoal.search.runs.refine import refine_rows

    refine_rows(load_run(file, changes or []), screen())


@app.command("label", epilog="Example: shoal label bags.parquet --to labelled.parquet")
def label_command(
    file: Annotated[
        str, typer.Argument(help="Parquet file of rows, with their bags and the bags' shares.", metavar="FILE")
    ],
    to: Annotated[str, typer.Option(help="The file that is written.")],
    bag: Annotated[str, typer.Option(help="Column of the row's bag; null for rows of a known label.")] = "bag",
    shares: Annotated[str, typer.Option(help="Column of the share of label 1, or of both labels.")] = "shares",
    name: Annotated[str, typer.Option("--label", help="Column of the label.")] = "label",
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="Column by which rows are alike, by default all numbers; repeatable."),
    ] = None,
    bag_weight: Annotated[float, typer.Option(help="Cost of a label too many or too few in a bag.")] = 10.0,
    edge_weight: Annotated[float, typer.Option(help="Cost of two like rows of unlike labels.")] = 2.0,
    neighbours: Annotated[int, typer.Option(help="Nearest rows to which each row is likened.")] = 5,
) -> None:
    """Label rows of which only the bags' shares of two labels are known, by those and by their neighbours."""
    from shoal.policies.bag_labels import BagLabels
    from shoal.search.front.labelling import BagColumns, label_bags

    try:
        settings = BagLabels(bag_weight, edge_weight, neighbours)
    except ValueError as error:
        raise InputError(f"--{str(error).replace('_', '-')}") from error
    for line in label_bags(file, to, BagColumns(bag, shares, name, tuple(inputs or ())), settings):
        print_plainly(line)


@app.command(epilog="Example: shoal report runs/demo")
def report(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Run directory or URI, or several.", metavar="DIR ...", autocompletion=complete_directory
        ),
    ],
    to: Annotated[str, typer.Option(help="The page of several runs.")] = "comparison.html",
) -> None:
    """Draw the run, or several runs side by side, as one HTML file that opens offline."""
    if len(paths) > 1:
        from shoal.search.report.compare import write_comparison

        print_plainly(f"report: {write_comparison(paths, to)}")
        return
    from shoal.search.records import directory
    from shoal.search.report.staged import write_stages_report
    from shoal.search.report.write import write_report

    given, store = directory.open_run(paths[0])
    write = write_stages_report if given.kind == "stages" else write_report
    print_plainly(f"report: {write(store)}")


@app.command(epilog="Example: shoal export runs/demo --member 3 --to exported/")
def export(
    path: DirectoryArgument,
    member: MemberOption = None,
    student: Annotated[str | None, typer.Option(help="A student of a distill run, by name.")] = None,
    to: Annotated[str | None, typer.Option(help="Where to; DIR/best or DIR/students/NAME by default.")] = None,
    merge: Annotated[bool, typer.Option(help="Add an adapter to the weights of its base.")] = False,
) -> None:
    """Write a member's weights, or a student's, as safetensors with a JSON config beside them."""
    from shoal.cluster.storage import Store
    from shoal.search.records import directory

    settings, store = directory.open_run(path)
    target = Store(to) if to else None
    if student is not None:
        from shoal.search.distill.export import export_student

        file = f"{export_student(settings, store, student, target)}/model.safetensors"
    else:
        file = directory.export_member(settings, store, member, target, merge)
    print_plainly(f"exported: {file}")


@app.command(epilog="Example: shoal schedule runs/demo > schedule.yaml")
def schedule(path: DirectoryArgument, member: MemberOption = None) -> None:
    """Print a member's hyperparameters over the steps, as YAML: a run's file takes it as it stands."""
    from shoal.search import notation
    from shoal.search.records import directory
    from shoal.search.runs.replay import lineage_of, schedule_entries

    settings, store = directory.open_run(path)
    _, segments = lineage_of(settings, store, member)
    write_document(notation.write_yaml({"schedule": schedule_entries(segments)}))


@app.command(epilog="Example: shoal replay runs/demo --member 3")
def replay(path: DirectoryArgument, member: MemberOption = None) -> None:
    """Train one model along the schedule of a member's lineage, into DIR/replay/MEMBER."""
    from shoal.search.runs import replay as replaying

    replaying.replay_lineage(path, member, screen())


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

        jobs.print_status(path, address, screen())
        return
    paths = [path] if path else runs_here()
    if not paths:
        raise InputError("runs/ holds no run: name a run directory.")
    print_states(paths, bool(path))


def print_states(paths: list[str], asked: bool) -> None:
    """Print a table of runs; one that cannot be read is an error if it was asked for, else a line."""
    from rich.table import Table

    from shoal.cluster.storage import BrokenFile
    from shoal.search.records import directory

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
            if asked:
                raise
            table.add_row(os.path.basename(place), "cannot be read")
            broken.append(str(error))
    screen().print(table)
    for place in stopped:
        print_plainly(
            f"{place}: stopped, since its driver is gone; go on with `shoal resume {shlex.quote(place)}`"
        )
    for line in broken:
        print_plainly(line, "red", stderr=True)
    if asked and (job := directory.job_of(paths[0])):
        print_plainly(f"job {job['job']}, submitted at {job['address']}")


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
    return [entry.path for entry in found if os.path.exists(f"{entry.path}/run.yaml")]


def run_command_line() -> None:
    """Run the command line; a mistake of the user's is one message without a stack trace."""
    warnings.formatwarning = warning_in_one_line  # type: ignore[assignment]
    with well_ended():
        try:
            app()
        except (InputError, NoRay) as error:
            sys.exit(report_error("error", error, 2))
        except Interrupted as error:
            sys.exit(report_error("interrupted", error, 130))
        except RunFailed as error:
            sys.exit(report_error("failed", error, 1))
        except Exception as error:
            sys.exit(report_fault(error))


def report_fault(error: Exception) -> int:
    """Report a file that is broken or cannot be written, or a fault in Shoal itself or in a library."""
    from shoal.cluster.storage import BrokenFile, CannotWrite

    if isinstance(error, BrokenFile):
        from shoal.search.records import directory

        return report_error("error", InputError(f"{error}. {directory.way_out(error)}"), 2)
    if isinstance(error, CannotWrite):
        return report_error("failed", error, 1)
    trace = traces.trace_of(error)
    return report_error("failed", RunFailed(f"{traces.in_one_line(trace)}."), 1, trace)


def report_error(kind: str, error: Exception, code: int, trace: str = "") -> int:
    said, trace = str(error), trace or getattr(error, "trace", "")
    if kind == "interrupted":
        ending.set_last_line(f"{kind}: {said}")
    if trace:
        said = f"{said.rstrip('.')}. {traces.keep_trace(trace)}"
    print_plainly(f"{kind}: {said}", "red", stderr=True)
    return code
