"""The sections of a run's file: what each key may hold, and what it is if it is not given."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from shoal.policies.halving import Cull
from shoal.policies.rules import Rules
from shoal.search.config.kinds import EXPLOIT, EXPLORE, AnyExploit, AnyExplore, AnySampler
from shoal.search.config.sections_of import (
    Count,
    Flag,
    Hyperparameters,
    Real,
    Settings,
    Share,
    Unbounded,
    Whole,
    section_of,
)
from shoal.trainables.settings import DecoderShape, Recipe


def one_place(given: object) -> object:
    if isinstance(given, list | tuple | dict):
        raise ValueError(
            f"must be one place, got {given!r}; a glob stands for several, such as `texts/*.jsonl` or "
            f"`{{one,two}}/*.jsonl`"
        )
    return given


Source = Annotated[str, BeforeValidator(one_place)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class Data(Settings):
    """Which text, how it becomes rows, and how much of each group a batch holds."""

    corpus: str = "runs/corpus"
    content: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = (
        None  # hash of the rows that a run began with
    )
    groups: dict[Name, Source] = Field(default_factory=dict)
    text_field: str = "text"
    tokenizer: str = "bytes"  # or a folder with tokenizer.json: the teacher's, in a run of kind distill
    sequence_length: Annotated[Whole, Field(ge=8, le=65536)] = 128
    megabytes: Annotated[Real, Field(gt=0)] = 8.0  # most text of a group
    memory_megabytes: Annotated[Unbounded, Field(gt=0)] = 1024.0  # of rows in each worker; the rest streams
    exhausted: Literal["repeat", "drop", "stop"] = "repeat"  # what a group does that was read to its end
    epochs: Count | None = None  # passes before it drops out or stops; repeats without end by default
    document_megabytes: Annotated[Unbounded, Field(gt=0)] | None = None  # longer ones are bad
    builder: Literal["local", "ray"] = "local"  # ray: in stages on the cluster, for what is too much for one
    bad_share: Share = 0.1  # of a group's documents; more bad ones than that end the build
    validation: Share = 0.05
    test: Share = 0.05
    proportions: dict[str, Annotated[Real, Field(ge=0)]] | None = None


BESIDE = {"vocabulary": 2, "sequence_length": 8}  # of the shape, from other sections


class Model(section_of(DecoderShape, BESIDE, checked_with=BESIDE)):  # type: ignore[misc]
    """Shape of the decoder-only transformer."""


class Training(section_of(Recipe)):  # type: ignore[misc]
    """What every member does alike; a searched hyperparameter of the same name goes before it."""

    batch: Count = 16
    evaluation_rows: Count = 32


OWN_TYPES = ("exploit", "explore", "age_window", "cull", "steps")  # of Rules, where a file says it otherwise


class CullSection(section_of(Cull)):  # type: ignore[misc]
    """ASHA for members that never recover: one that falls behind on a rung becomes a clone of a good one."""


class Population(section_of(Rules, without=OWN_TYPES)):  # type: ignore[misc]
    """How many members, when they are ready, and by which rules they copy and vary."""

    members: Count = 8
    interval: Count = 20
    mode: Literal["synchronous", "asynchronous"] = "synchronous"  # asynchronous: nobody waits for anybody
    start: Literal["random", "optuna"] = "random"  # first hyperparameters: drawn, or spread evenly
    exploit: AnyExploit = EXPLOIT["truncation"](kind="truncation")
    explore: AnyExplore = EXPLORE["perturb"](kind="perturb")
    age_window: Annotated[Whole, Field(ge=0)] | None = None  # steps by which the members compared may differ
    cull: CullSection | None = None


class Cluster(Settings):
    """How members lie on workers; either the workers or the members that each of them hosts are given."""

    broods: Count = 2
    broods_least: Count | None = None  # begin with fewer, down to this many, where not all find room
    workers_per_brood: Count | None = None  # as many as one member spans by default
    members_per_worker: Count | None = None
    workers_per_member: Count = 1
    span: Literal["ddp", "fsdp"] = "ddp"  # of a member over workers: whole weights in each, or a share
    cpus_per_worker: Annotated[Real, Field(gt=0)] | None = None
    gpus_per_worker: Annotated[Real, Field(ge=0)] = 0.0
    restarts: Annotated[Whole, Field(ge=0)] = 3  # of a brood that lost a worker
    stack: Flag | None = None  # members as one model; by default on GPUs, and of small members on CPUs
    compile: Flag = False  # loss and gradients of stacks, by torch.compile; then all are stacked that can be
    direct: Flag | None = None  # weights from memory to memory by NIXL; by default from GPUs where it is there
    threads_per_worker: Count | None = None  # of torch; as many as its CPUs by default
    resources: dict[str, Annotated[Real, Field(gt=0)]] = Field(default_factory=dict)  # others, of each worker
    patience: Annotated[Unbounded, Field(ge=0)] = 0.0  # seconds to wait for a cluster that can still grow
    spot: Flag = False  # workers may be taken away: told so, they write a checkpoint at once
    # how workers are laid out over nodes: close together, or far apart so that a lost node takes few members
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    dashboard: Flag = False  # of an embedded Ray: also what Prometheus needs to find it


class Sampling(Settings):
    """Which rows each epoch keeps and what they weigh, by whose losses."""

    rule: AnySampler | None = None  # all rows, alike
    view: Literal["member", "brood"] = "member"
    scorer: str | None = None  # an exported model, such as runs/NAME/best: its loss of a row is the row's score


SEARCHED = set(Recipe.__dataclass_fields__) - {"steps", "optimiser"}


class Scheduled(Settings):
    """Hyperparameters that hold after `from_step`, until the next entry's: what `shoal schedule` prints."""

    from_step: Annotated[Whole, Field(ge=0)]
    hyperparameters: Hyperparameters


class Start(Settings):
    """What a member begins with, in place of what is drawn; equal seeds begin with equal weights."""

    hyperparameters: Hyperparameters
    seed: Annotated[Whole, Field(ge=0)] = 0


class Checkpoint(Settings):
    every: Count = 1
    keep: Annotated[Whole, Field(ge=2)] = 2
