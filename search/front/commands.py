"""The commands around a run: explain a key, begin a file, look at the machine, plan, compare."""

import json
import os
from typing import Annotated

import typer

from shoal.search.errors import InputError
from shoal.search.front.completion import complete_change, complete_directory
from shoal.search.output import print_plainly, screen, write_document

FileArgument = Annotated[str, typer.Argument(help="YAML file of the run.", metavar="FILE")]
ChangesArgument = Annotated[
    list[str] | None,
    typer.Argument(help="Changes to it.", metavar="[key=value ...]", autocompletion=complete_change),
]
DirectoryArgument = Annotated[
    str, typer.Argument(help="Run directory or URI.", metavar="DIR", autocompletion=complete_directory)
]


def register(app: typer.Typer) -> None:
    """Add these commands to the command `shoal`."""
    app.command("explain", epilog="Example: shoal explain population.interval")(explain_command)
    app.command("init", epilog="Example: shoal init text --data texts/ --name novels")(init_command)
    app.command("plan", epilog="Example: shoal plan examples/demo.yaml")(plan_command)
    app.command("doctor", epilog="Example: shoal doctor")(doctor_command)
    app.command("compare", epilog="Example: shoal compare runs/demo runs/other")(compare_command)
    app.command("track", epilog="Example: shoal track runs/demo")(track_command)
    app.command("schema", epilog="Example: shoal schema > run.schema.json")(schema_command)


def explain_command(
    key: Annotated[str | None, typer.Argument(help="A key such as population.interval.", metavar="KEY")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Print all keys as a Markdown page.")] = False,
) -> None:
    """Say what a key of a run's file means, what it takes, and its default."""
    from shoal.search.front.keys import all_keys, explain_key, reference_page

    if everything:
        write_document(reference_page())
        return
    lines = [f"{each.path}: {each.meaning}" for each in all_keys() if "." not in each.path]
    write_document("".join(f"{line}\n" for line in (explain_key(key) if key else lines)))


def schema_command() -> None:
    """Print the JSON schema of a run's file, by which editors complete and check its keys."""
    from shoal.search.front.schema import run_schema

    write_document(json.dumps(run_schema(), indent=1) + "\n")


def init_command(
    kind: Annotated[
        str, typer.Argument(help="text, finetune, classifier, own, mixture or distill.", metavar="KIND")
    ],
    name: Annotated[str | None, typer.Option(help="Of the run; by default the kind.")] = None,
    data: Annotated[str | None, typer.Option(help="Folder of your data; its folders are groups.")] = None,
    model: Annotated[str | None, typer.Option(help="Folder of a model to begin with.")] = None,
) -> None:
    """Write a commented run file, and a Python file where the kind needs one, into this folder."""
    from shoal.search.front.begin import new_files

    files = new_files(kind, name or kind, data, model)
    if there := [file for file in files if os.path.exists(file)]:
        raise InputError(f"{there[0]} is there already; give another --name.")
    for file, content in files.items():
        with open(file, "w", encoding="utf-8") as written:
            written.write(content)
        print_plainly(f"written: {file}")
    first = next(iter(files))
    print_plainly(f"next: `shoal validate {first}`, then `shoal run {first}`")


def plan_command(
    file: FileArgument,
    changes: ChangesArgument = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Also make a member here, and time a step and its score."),
    ] = False,
) -> None:
    """Say what a run will take, before anything starts: steps, tokens, memory, disk, workers."""
    from shoal.search.front.plan import plans_of
    from shoal.search.load import load_run

    for plan in plans_of(load_run(file, changes or []), measure):
        for line in plan.lines():
            print_plainly(line)


def doctor_command() -> None:
    """Say what of this machine would stand in a run's way; exit code 1 if something does."""
    from shoal.search.front.doctor import BAD, findings

    found = []
    for each in findings():
        found.append(each.kind)
        print_plainly(f"{each.kind:5} {each.about}: {each.said}")
    if BAD in found:
        raise typer.Exit(1)


def compare_command(
    places: Annotated[
        list[str],
        typer.Argument(
            help="Run directories or URIs.", metavar="DIR DIR ...", autocompletion=complete_directory
        ),
    ],
    to: Annotated[str, typer.Option(help="The page with the curves.")] = "comparison.html",
) -> None:
    """Hold runs beside one another: scores, settings that differ, and a page with their curves."""
    from rich.table import Table

    from shoal.search.report.compare import comparing_page, read_stories, result_rows, setting_rows

    stories = read_stories(places)
    for rows in (result_rows(stories), setting_rows(stories)):
        table = Table("", *stories, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        screen().print(table)
    with open(to, "w", encoding="utf-8") as page:
        page.write(comparing_page(stories))
    print_plainly(f"page: {os.path.abspath(to)}")


def track_command(
    place: DirectoryArgument,
    to: Annotated[list[str] | None, typer.Option(help="tensorboard, mlflow or wandb; may be repeated.")] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Send everything, into new runs of the tracker.")
    ] = False,
) -> None:
    """Send a run to the trackers that its file names, TensorBoard by default: whatever they lack."""
    from shoal.search.records import directory
    from shoal.search.track.again import track_again

    for line in track_again(*directory.open_run(place), to or [], anew):
        print_plainly(line)
