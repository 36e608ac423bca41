"""The settings of a run: what each key may hold, and what must hold between keys."""

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from policies.rules import ALONE, Rules
from policies.schedule import Setting
from policies.space import Domain
from search.kinds import (
    AnyDomain,
    AnyExploit,
    AnyExplore,
    Count,
    PerturbRule,
    Settings,
    Share,
    TruncationRule,
)
from trainables.settings import Recipe, Shape

FORMAT: Literal[1] = 1  # of the run directory; a reader refuses a higher one

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class Data(Settings):
    """Which text, how it becomes rows, and how much of each group a batch holds."""

    corpus: str = "runs/corpus"
    groups: dict[Name, str] = Field(default_factory=dict)
    text_field: str = "text"
    tokenizer: Literal["bytes"] = "bytes"
    sequence_length: Annotated[int, Field(ge=8, le=65536)] = 128
    megabytes: Annotated[float, Field(gt=0)] = 8.0  # most text of a group
    memory_megabytes: Annotated[float, Field(gt=0)] = 1024.0  # most rows that a worker holds
    validation: Share = 0.05
    test: Share = 0.05
    proportions: dict[str, Annotated[float, Field(ge=0)]] | None = None


class Model(Settings):
    """Shape of the decoder-only transformer."""

    layers: Count = 4
    heads: Count = 4
    width: Count = 128
    expansion: Annotated[float, Field(gt=0)] = 4.0


class Training(Settings):
    """What every member does alike; a searched hyperparameter of the same name goes before it."""

    steps: Count = 200
    batch: Count = 16
    evaluation_rows: Count = 32
    warmup: Annotated[int, Field(ge=0)] = 20
    final_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip: Annotated[float, Field(gt=0)] = 1.0
    optimiser: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # of sgd
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    z_loss: Annotated[float, Field(ge=0)] = 0.0  # weight of the squared log-partition


class Population(Settings):
    """How many members, when they are ready, and by which rules they copy and vary."""

    members: Count = 8
    interval: Count = 20
    start: Literal["random", "optuna"] = "random"  # first hyperparameters: drawn, or spread evenly
    exploit: AnyExploit = TruncationRule(kind="truncation")
    explore: AnyExplore = PerturbRule(kind="perturb")
    least: Annotated[int, Field(ge=2)] = 2  # members with a score before anybody copies
    replacements: Annotated[int, Field(ge=0)] = 8  # times that a failed member becomes a clone of a good one


class Cluster(Settings):
    broods: Count = 2
    workers_per_brood: Count = 1
    cpus_per_worker: Annotated[float, Field(gt=0)] | None = None
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    restarts: Annotated[int, Field(ge=0)] = 3  # of a brood that lost a worker
    stack: bool | None = None  # members as one model; by default on GPUs, and of small members on CPUs
    threads_per_worker: Count | None = None  # of torch; as many as its CPUs by default


SEARCHED = set(Recipe.__dataclass_fields__) - {"steps", "optimiser"}


class Scheduled(Settings):
    """Hyperparameters that hold after `from_step`, until the next entry's: what `shoal schedule` prints."""

    from_step: Annotated[int, Field(ge=0)]
    hyperparameters: dict[str, Any]


class Checkpoint(Settings):
    every: Count = 1
    keep: Annotated[int, Field(ge=2)] = 2


class Run(Settings):
    """A whole run, resolved."""

    name: Name
    format: Literal[1] = FORMAT
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    directory: str = ""
    trainable: Annotated[str, Field(pattern=r"^(decoder|toy|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$")] = "decoder"
    data: Data = Data()
    model: Model = Model()
    training: Training = Training()
    hyperparameters: dict[str, AnyDomain] = Field(default_factory=dict)
    schedule: list[Scheduled] = Field(default_factory=list)
    root: Annotated[int, Field(ge=0)] = 0  # member 0 starts as this member of a population would
    population: Population = Population()
    cluster: Cluster = Cluster()
    checkpoint: Checkpoint = Checkpoint()

    @property
    def reads_text(self) -> bool:
        """Whether members train on rows of a corpus and score themselves by minus a loss in nats."""
        return self.trainable == "decoder"

    @property
    def rounds(self) -> int:
        """Number of intervals that each member trains."""
        return self.training.steps // self.population.interval

    def rules(self) -> Rules:
        chosen = self.population
        if chosen.exploit.kind == "none":
            return ALONE
        rules = chosen.exploit.build(), chosen.explore.build()
        return Rules(*rules, least=chosen.least, replacements=chosen.replacements)

    def settings(self) -> list[Setting]:
        return [Setting(entry.from_step, entry.hyperparameters) for entry in self.schedule]

    def space(self) -> dict[str, Domain]:
        return {name: settings.build() for name, settings in self.hyperparameters.items()}

    @model_validator(mode="after")
    def check(self) -> "Run":
        problems = [problem for check in CHECKS if (problem := check(self))]
        if problems:
            raise ValueError("\n".join(problems))
        return self


def check_population(run: Run) -> str:
    chosen, exploit = run.population, run.population.exploit
    if exploit.kind == "none":
        return ""
    if chosen.members < 2:
        return (
            f"population.members: exploit needs at least 2 members, got {chosen.members}; "
            f"add members or set population.exploit: none"
        )
    if exploit.kind == "truncation" and exploit.build().tail(chosen.members) < 1:
        return (
            f"population.exploit.fraction: {exploit.fraction:g} of {chosen.members} members is less than one "
            f"member, so nobody would ever copy; use at least {1 / chosen.members:.3g}"
        )
    if exploit.kind == "multiple_frequency" and chosen.members < 4 * len(exploit.frequencies):
        return (
            f"population.exploit.frequencies: each of {len(exploit.frequencies)} needs 4 members, so that a "
            f"quarter is one member, but population.members is {chosen.members}"
        )
    if chosen.least > chosen.members:
        return f"population.least: must be at most population.members ({chosen.members}), got {chosen.least}"
    if not run.hyperparameters:
        return "hyperparameters: exploit needs at least one to vary; name one or set population.exploit: none"
    return ""


def check_interval(run: Run) -> str:
    steps, interval = run.training.steps, run.population.interval
    if interval > steps:
        return f"population.interval: must be at most training.steps ({steps}), got {interval}"
    if steps % interval:
        return (
            f"population.interval: must divide training.steps ({steps}), got {interval}; "
            f"{steps - steps % interval} steps would do"
        )
    return ""


def check_broods(run: Run) -> str:
    hosts = run.cluster.broods * run.cluster.workers_per_brood
    if hosts > run.population.members:
        return (
            f"cluster.broods: {hosts} workers ({run.cluster.broods} broods of {run.cluster.workers_per_brood}) "
            f"must host at least one member each, but population.members is {run.population.members}"
        )
    return ""


def check_schedule(run: Run) -> str:
    if not run.schedule:
        return ""
    if run.population.exploit.kind != "none" or run.hyperparameters:
        return "schedule: stands in place of hyperparameters, with population.exploit: none"
    starts = [entry.from_step for entry in run.schedule]
    if starts[0] or starts != sorted(set(starts)):
        return f"schedule: from_step must begin with 0 and rise, got {starts}"
    odd = [start for start in starts if start % run.population.interval]
    if odd:
        interval = run.population.interval
        return f"schedule: from_step must be a multiple of population.interval ({interval}), got {odd[0]}"
    return ""


def check_hyperparameters(run: Run) -> str:
    if ":" in run.trainable:
        return ""  # only the user's own class knows
    known = {"toy": {"h0", "h1"}, "decoder": SEARCHED}[run.trainable]
    searched = {"hyperparameters": set(run.hyperparameters)}
    scheduled = {f"schedule.{place}": set(entry.hyperparameters) for place, entry in enumerate(run.schedule)}
    for place, names in (scheduled or searched).items():
        for name in sorted(names - known):
            return f"{place}.{name}: {run.trainable} has no such hyperparameter{nearest(name, known)}"
        if run.trainable == "toy" and names != known:
            return f"{place}: the toy needs {' and '.join(sorted(known))}"
    return ""


def check_data(run: Run) -> str:
    if not run.reads_text:
        return ""
    if not run.data.groups:
        return "data.groups: at least one group is needed, such as `code: installed`"
    given = run.data.proportions
    if given is None:
        return ""
    for group in given:
        if group not in run.data.groups:
            return f"data.proportions.{group}: no such group{nearest(group, run.data.groups)}"
    if sum(given.values()) <= 0:
        return "data.proportions: at least one must be above 0"
    return ""


def check_model(run: Run) -> str:
    if not run.reads_text:
        return ""
    try:
        Shape(vocabulary=2, sequence_length=run.data.sequence_length, **run.model.model_dump())
    except ValueError as error:
        return f"model: {error}"
    return ""


CHECKS = (
    check_population,
    check_interval,
    check_broods,
    check_schedule,
    check_hyperparameters,
    check_data,
    check_model,
)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message: the nearest known name, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else f"; allowed are {', '.join(names)}"
