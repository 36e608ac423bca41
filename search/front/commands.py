"""The commands around a run: explain a key, begin a file, look at the machine, plan, compare."""

import json
from typing import Annotated

import typer

from shoal.search.output import write_document


def register(app: typer.Typer) -> None:
    """Add these commands to the command `shoal`."""
    app.command("explain", epilog="Example: shoal explain population.interval")(explain_command)
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
