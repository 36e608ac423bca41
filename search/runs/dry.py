"""A dry run: one member is made, trains a step, is scored, saved and loaded, here and without Ray.

A slip in `score` or `state` comes out in seconds, and not after the first interval of a run.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from shoal.cluster import nests
from shoal.cluster.row_order import RowOrder
from shoal.cluster.storage import Store
from shoal.cluster.streams import WholeStream
from shoal.search.config.run import Run
from shoal.search.config.stage_runs import stage_runs
from shoal.search.corpus.batches import file_rows
from shoal.search.corpus.manifest import Manifest
from shoal.search.driver.start import first_state
from shoal.search.errors import InputError
from shoal.search.members.build import build_members
from shoal.search.members.unmade import Unmade
from shoal.search.records.beginning import begun_with
from shoal.search.runs.population import prepare_run
from shoal.search.traces import in_one_line, trace_of
from shoal.search.worker.guarded import measured
from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.member import Member


@dataclass
class Trial:
    """What was tried so far: its name, seconds, and what came of it."""

    run: Run
    done: list[tuple[str, float, str]] = field(default_factory=list)

    @contextmanager
    def of(self, name: str) -> Iterator[list[str]]:
        """Time what is tried; whatever it raises is an InputError that names it."""
        said: list[str] = []
        began = time.perf_counter()
        try:
            yield said
        except InputError:
            raise
        except Exception as error:  # the user's own code may raise anything
            trace = trace_of(error)
            raise InputError(f"trainable: {self.run.trainable}: {name}: {in_one_line(trace)}", trace) from error
        self.done.append((name, time.perf_counter() - began, ", ".join(said)))


def try_out(run: Run, console: Console) -> None:
    """Try a member of a run that was checked, and print what each part of its life takes.

    Raises InputError with the part that fails.
    """
    if run.kind == "stages":
        for stage in stage_runs(run):  # the weights that a stage begins with are not there yet
            try_out(stage.model_copy(update={"begin": None}), console)
        return
    run = prepare_run(run, console)
    trial = Trial(run)
    first, second = two_members(trial)
    with trial.of("train, 1 step") as said:
        said.append(f"loss {a_number(first.train(1), 'the training loss'):.4f}")
        check_counted(first, 1)
    for split in ("validation", "test"):
        with trial.of(f"score, {split}") as said:
            said += scores_on(run, first, split)
    with trial.of("state") as said:
        state = handed_out(first.state)
        said.append(f"{len(nests.dumps(state)) / 2**20:.2f} MiB in a checkpoint")
    values = dict(getattr(first, "hyperparameters", starts(run)[0]))
    with trial.of("load, by another member") as said:
        hand_in(second.load, state, values)
        check_counted(second, 1)
        said.append(goes_on_alike(first, second))
    console.print(as_table(trial))


def starts(run: Run) -> list[dict[str, Any]]:
    """Return the hyperparameters that the first two members begin with."""
    found = [dict(each.hyperparameters) for each in first_state(run)[:2]]
    return found if len(found) == 2 else found * 2


def two_members(trial: Trial) -> tuple[Member, Member]:
    """Make the members that would begin a run; they may differ in what is searched, and copy one another."""
    run = trial.run
    with trial.of("make, 2 members") as said:
        begun = begun_with(run)
        made = build_members(run, dict(enumerate(starts(run))), streams=first_files, begun=begun)
        for member in made.values():
            if isinstance(member, Unmade):
                raise member.error
        said.append(member_in_words(made[0]))
    return made[0], made[1]


def first_files(run: Run, manifest: Manifest) -> dict[str, WholeStream]:
    """Return a stream of each group's first file of rows, read here."""
    store, found = Store(run.data.corpus), {}
    for name, group in manifest.groups.items():
        if name not in run.unseen:
            split = group.splits["train"]
            order = RowOrder(name, file_rows(split)[:1], run.seed)
            blocks = iter([store.read_table(split.files[0])])
            found[name] = WholeStream(blocks, order, manifest.row_type)
    return found


def scores_on(run: Run, member: Member, split: str) -> list[str]:
    score, losses = member.evaluate(split)
    scored = split == "validation" and getattr(member, "scored", True)
    if scored:
        a_number(score, "the score")
    measures = measured(member, split)
    named = f"{run.ranked_by} {-score if run.by_loss else score:.4f}" if scored else ""
    return [*filter(None, [named]), *(f"{group} {loss:.4f}" for group, loss in {**losses, **measures}.items())]


def check_counted(member: Member, steps: int) -> None:
    """Raise ValueError if a member does not count its steps: a run could not tell when it is over."""
    if int(member.trained) != steps:
        raise ValueError(f"`trained` must count the weights' steps, {steps} here, but is {member.trained!r}.")


def a_number(value: Any, named: str) -> float:
    """Return a number; raises ValueError if it is none, or is not finite."""
    if not isinstance(value, int | float | np.number) or not np.isfinite(value):
        raise ValueError(f"{named} must be a finite number, but is {value!r}.")
    return float(value)


def member_in_words(member: Member) -> str:
    weights: Callable[[], Mapping[str, Any]] | None = getattr(member, "weights", None)
    if not callable(weights):
        return type(member).__name__
    return f"{type(member).__name__}, {sum(each.numel() for each in weights().values()):,} trained weights"


def goes_on_alike(first: Member, second: Member) -> str:
    """Train both a step on, and say whether the copy trained on as its donor did."""
    losses = [first.train(1), second.train(1)]
    if losses[0] == losses[1]:
        return "it trains on as its donor does"
    return (
        f"its next loss is {losses[1]:.6g}, its donor's {losses[0]:.6g}: state() or load() leaves something out"
    )


def as_table(trial: Trial) -> Table:
    drawn = Table("tried", "seconds", "", box=None, pad_edge=False)
    for name, seconds, said in trial.done:
        drawn.add_row(name, f"{seconds:.2f}", said)
    return drawn
