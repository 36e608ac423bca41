"""Run from Python: as the command line does, but Ctrl-C ends Ray and not the process."""

from rich.console import Console

from shoal.cluster import ending
from shoal.search.config.run import Run
from shoal.search.front.shipped import write_class
from shoal.search.records import directory
from shoal.search.runs.kinds import runner


def train_here(run: Run, baseline: bool = False, resume: str = "never") -> str:
    """Train a run and return its directory; raises Interrupted where a signal or a notebook stops it."""
    if resume == "never":
        directory.refuse_existing(run)
    write_class(run)
    with ending.listening(exits=False):
        runner(run.kind).run_new(run, Console(), baseline, resume)
    return run.directory


def train_on_here(place: str) -> str:
    """Continue the run of a directory from its last checkpoint; return the directory."""
    run, store = directory.open_run(place)
    with ending.listening(exits=False):
        runner(run.kind).run_on(store.uri, Console())
    return store.uri


def replay_here(place: str, member: int) -> str:
    """Train a member's lineage again as one model; return the replay's directory."""
    from shoal.search.runs.replay import replay_lineage

    with ending.listening(exits=False):
        replay_lineage(place, member, Console())
    return f"{place}/replay/{member}"
