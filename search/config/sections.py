"""The sections of a run's file: what each key may hold, and what it is if it is not given."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from shoal.policies.halving import Cull
from shoal.policies.rules import Rules
from shoal.search.config.kinds import EXPLOIT, EXPLORE, AnyAdapter, AnyExploit, AnyExplore, AnySampler
from shoal.search.config.rows import ROWS_OF, AnyColumn, AnyFormat, RowKind, fields_in
from shoal.search.config.sections_of import (
    Count,
    Flag,
    HyperparameterValues,
    Real,
    Settings,
    Share,
    Unbounded,
    Values,
    WholeNumber,
    kind_in,
    section_of,
)
from shoal.trainables.settings import Cooling, DecoderShape, Recipe


def one_place(given: object) -> object:
    if isinstance(given, list | tuple | dict):
        raise ValueError(
            f"must be one place, got {given!r}; a glob stands for several, such as `texts/*.jsonl` or "
            f"`{{one,two}}/*.jsonl`"
        )
    return given


def text_fields(given: object) -> object:
    """Return a field, or a template of fields, of all groups or by group."""
    for text in given.values() if isinstance(given, dict) else [given]:
        if not isinstance(text, str):
            raise ValueError(f"must be a word, got {text!r}")
        fields_in(text)
    return given


Source = Annotated[str, BeforeValidator(one_place)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
TextFields = Annotated[str | dict[Name, str], BeforeValidator(text_fields)]
# beside the text, these keys decide what the rows are
ROW_KEYS = ("rows", "format", "columns", "split_field")


class Data(Settings):
    """Which text or records, how they become rows, and how much of each group a batch holds."""

    corpus: str = "runs/corpus"  # where the corpus is built, and found again by the next run
    # hash of the rows that a run began with
    content: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    # the named parts of the data, and where each comes from: a file, a folder, a glob or a URI
    groups: dict[Name, Source] = Field(default_factory=dict)
    rows: RowKind = "tokens"  # the kind of rows; by default as `format` or `columns` makes them
    # the field that holds the text, or a template such as "{question} {answer}"; for all groups or by group
    text_field: TextFields = "text"
    format: AnyFormat | None = None  # how records become rows, if not as one text each
    columns: dict[Name, AnyColumn] = Field(default_factory=dict)  # by default what the source's types say
    split_field: str | None = None  # this column names a row's split; by default a hash decides it
    tokenizer: str = "bytes"  # or a folder with tokenizer.json; kind distill takes the teacher's
    sequence_length: Annotated[WholeNumber, Field(ge=8, le=65536)] = 128  # tokens of a row
    megabytes: Annotated[Real, Field(gt=0)] = 8.0  # limit on the text of each group
    memory_megabytes: Annotated[Unbounded, Field(gt=0)] = (
        1024.0  # each worker holds so many rows in memory and streams the rest
    )
    exhausted: Literal["repeat", "drop", "stop"] = (
        "repeat"  # a group whose rows are used up starts again, drops out, or ends the run
    )
    epochs: Count | None = None  # passes before `drop` or `stop` acts; `repeat` without it never ends
    document_megabytes: Annotated[Unbounded, Field(gt=0)] | None = None  # a longer document is bad
    builder: Literal["local", "ray"] = (
        "local"  # ray: stages on the cluster, for text that is too much for one machine
    )
    bad_share: Share = 0.1  # the build ends with an error if more of a group's documents are bad
    validation: Share = 0.05  # share of the text that is held out, to score members
    test: Share = 0.05  # share of the text that is held out, to score the best member once at the end
    # share of each group in a batch, where members do not mix by themselves; by default equal
    proportions: dict[str, Annotated[Real, Field(ge=0)]] | None = None
    generated: list[Name] = Field(default_factory=list)  # the groups whose rows a model wrote
    real_share: Annotated[Real, Field(ge=0, le=1)] = 0.0  # least share of a batch from the other groups

    @model_validator(mode="before")
    @classmethod
    def derive_rows(cls, given: Any) -> Any:
        """Set the kind of rows where another key decides it."""
        if not isinstance(given, dict) or "rows" in given:
            return given
        if given.get("format") is not None:
            kind = given["format"] if isinstance(given["format"], str) else kind_in(given["format"])
            return {**given, "rows": ROWS_OF.get(kind, "tokens")}
        return {**given, "rows": "columns"} if given.get("columns") or given.get("split_field") else given

    @property
    def row_settings(self) -> dict[str, Any]:
        """What decides the rows beside the text, in plain values; nothing for rows of plain text."""
        plain = self.model_dump(mode="json", include=set(ROW_KEYS))
        if plain["format"] is not None and plain["format"].get("choices", "") is None:
            del plain["format"]["choices"]  # older corpora have no such key
        for column in plain["columns"].values():
            if column.get("kind") == "text" and column.get("most", "") is None:
                del column["most"]  # nor this one
        defaults: dict[str, Any] = {"rows": "tokens", "format": None, "columns": {}, "split_field": None}
        return {key: plain[key] for key in ROW_KEYS if plain[key] != defaults[key]}

    def text_of(self, group: str) -> str:
        """Return the field or template that is a group's text."""
        given = self.text_field
        return str(given.get(group, "text") if isinstance(given, dict) else given)


# DecoderShape takes these from other sections; the numbers serve only to check `model:` alone
KEYS_OF_OTHER_SECTIONS = {"vocabulary": 2, "sequence_length": 8}


PRETRAINED_KEYS = {"path", "adapter", "gradient_checkpointing", "begin", "fresh", "freeze"}
COOLING_KEYS = set(Cooling.__dataclass_fields__)
# a decoder without experts looks at none of these
GATE_KEYS = {"gate", "active_experts", *COOLING_KEYS}
SHAPE_KEYS = set(DecoderShape.__dataclass_fields__) - KEYS_OF_OTHER_SECTIONS.keys()
DECODER_KEYS = SHAPE_KEYS | COOLING_KEYS


class Model(section_of(DecoderShape, KEYS_OF_OTHER_SECTIONS, checked_with=KEYS_OF_OTHER_SECTIONS)):  # type: ignore[misc]
    """Shape of the decoder-only transformer, or a pretrained model and what of it trains."""

    gate_start: Annotated[Real, Field(gt=0)] = Cooling.gate_start  # the gate's temperature at the first step
    gate_end: Annotated[Real, Field(gt=0)] = Cooling.gate_end  # that at the last step, and of judging
    # weight of the loss that is 0 where a row uses all experts alike
    gate_balance: Annotated[Real, Field(ge=0)] = Cooling.gate_balance
    # causal_lm, preference: a folder of transformers, package:NAME/FOLDER, a URI, or a name on the hub;
    # preference: also an exported decoder
    path: str = ""
    adapter: AnyAdapter | None = None  # causal_lm: what trains; by default all weights do
    gradient_checkpointing: Flag = (
        False  # causal_lm: layers are computed again in the backward pass, to save memory
    )
    begin: str = ""  # causal_lm: an export of Shoal's to go on from, such as runs/NAME/best
    fresh: list[str] = Field(default_factory=list)  # causal_lm: patterns of weights that each member draws anew
    freeze: list[str] = Field(default_factory=list)  # causal_lm: patterns of weights that do not train

    @property
    def shape(self) -> dict[str, Any]:
        """The settings of the built-in decoder's network."""
        return {name: getattr(self, name) for name in SHAPE_KEYS}

    @property
    def cooling(self) -> dict[str, float]:
        """How the gate between the decoder's experts cools."""
        return {name: getattr(self, name) for name in COOLING_KEYS}


class Training(section_of(Recipe)):  # type: ignore[misc]
    """The settings that all members share; a searched hyperparameter of the same name replaces one."""

    batch: Count = 16  # rows of a step
    evaluation_rows: Count = 32  # held-out rows of each group that a score is measured on

    @model_validator(mode="before")
    @classmethod
    def precision_in_bits(cls, given: Any) -> Any:
        """Take a number under `precision` as `bits`: computing with so many is emulated in float32."""
        if not isinstance(given, dict) or type(given.get("precision")) is not int:
            return given
        if "bits" in given:
            raise ValueError(f"must have `precision` as a word where it has `bits`, got {given['precision']}")
        rest = {key: value for key, value in given.items() if key != "precision"}
        return {**rest, "bits": given["precision"]}


OWN_TYPES = (
    "exploit",
    "explore",
    "age_window",
    "cull",
    "steps",
)  # fields of Rules that a file writes in another way


class CullSection(section_of(Cull)):  # type: ignore[misc]
    """ASHA for members that never recover: one that falls behind on a rung becomes a clone of a good one."""


class Population(section_of(Rules, without=OWN_TYPES)):  # type: ignore[misc]
    """How many members, when they are ready, and by which rules they copy and vary."""

    members: Count = 8  # how many models train side by side
    interval: Count = 20  # steps from one report to the next; after each report members may copy
    mode: Literal["synchronous", "asynchronous"] = "synchronous"  # asynchronous: no member waits for another
    # how first hyperparameters are found: random draws, a Sobol sequence, or each combination of a grid once
    start: Literal["random", "optuna", "grid"] = "random"
    exploit: AnyExploit = EXPLOIT["truncation"](kind="truncation")  # which member copies which
    explore: AnyExplore = EXPLORE["perturb"](kind="perturb")  # how a copy's hyperparameters are varied
    age_window: Annotated[WholeNumber, Field(ge=0)] | None = (
        None  # members are compared if their steps differ by at most this
    )
    cull: CullSection | None = None  # a member that falls far behind becomes a clone of a good one (ASHA)
    # hyperparameter -> values, each fixed within a part of the population; members copy only within their part
    parts: dict[Name, Values] = Field(default_factory=dict)


class Cluster(Settings):
    """How members are laid out on workers. Give `workers_per_brood` or `members_per_worker`, not both."""

    broods: Count = 2  # groups of workers; each is one trial of Ray Tune
    broods_least: Count | None = None  # the run begins with as few as this where there is no room for all
    workers_per_brood: Count | None = None  # by default `workers_per_member`
    members_per_worker: Count | None = None  # in place of workers_per_brood: how many members each worker hosts
    workers_per_member: Count = 1  # a large member may span several workers, each with its part of every batch
    span: Literal["ddp", "fsdp"] = "ddp"  # ddp: each worker of a member has all weights; fsdp: a shard of them
    cpus_per_worker: Annotated[Real, Field(gt=0)] | None = None  # by default 60 % of all CPUs, shared evenly
    gpus_per_worker: Annotated[Real, Field(ge=0)] = 0.0  # GPUs of each worker; with 0 members train on CPUs
    restarts: Annotated[WholeNumber, Field(ge=0)] = 3  # how often a brood that lost a worker starts again
    stack: Flag | None = None  # train members as one model; by default on GPUs, and on CPUs if they are small
    compile: Flag = False  # compile stacks by torch.compile; all members that can be stacked are
    direct: Flag | None = None  # NIXL copies weights between memories; by default if installed, and on GPUs
    threads_per_worker: Count | None = None  # torch's threads; by default as many as the worker has CPUs
    resources: dict[str, Annotated[Real, Field(gt=0)]] = Field(
        default_factory=dict
    )  # other resources of each worker
    patience: Annotated[Unbounded, Field(ge=0)] = 0.0  # seconds to wait for a cluster that can still grow
    spot: Flag = False  # nodes may be taken away; workers that are told so write a checkpoint at once
    # how workers are laid out over nodes: close together, or far apart so that a lost node takes few members
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    dashboard: Flag = (
        False  # Ray's dashboard, where the run starts its own Ray; it also lets Prometheus find the run
    )


class Sampling(Settings):
    """Which rows each epoch keeps, what each of them weighs, and whose losses decide it."""

    rule: AnySampler | None = None  # by default all rows, with equal weights
    # the losses that decide about a member's rows: its own, or those of all members of its brood
    view: Literal["member", "brood"] = "member"
    scorer: str | None = None  # an exported model, such as runs/NAME/best; a row's score is its loss there
    # or a score that `selection:` has kept beside the rows; two are put into ranks, for the rule's `blend`
    score: Name | tuple[Name, Name] | None = None


class Scheduled(Settings):
    """Hyperparameters that hold from `from_step` on, until the next entry; `shoal schedule` prints these."""

    from_step: Annotated[WholeNumber, Field(ge=0)]  # the first step of the entry; 0 in the first one
    hyperparameters: HyperparameterValues  # their values from this step on


class Start(Settings):
    """A member's first hyperparameters, given rather than drawn; equal seeds begin with equal weights."""

    hyperparameters: HyperparameterValues  # their values for this member
    seed: Annotated[WholeNumber, Field(ge=0)] = 0  # equal seeds begin with equal weights


class Stop(Settings):
    """What ends a run as a whole before its last step; it is looked at after each report."""

    minutes: Annotated[Real, Field(gt=0)] | None = None  # limit of the training, those before a resume included
    score: Real | None = None  # a member has reached it; of text it is minus the loss
    patience: Count | None = None  # so many reports of each member have brought no better best score

    @model_validator(mode="after")
    def check(self) -> "Stop":
        if self.minutes is None and self.score is None and self.patience is None:
            raise ValueError("one of minutes, score and patience must be given")
        return self


class Checkpoint(Settings):
    every: Count = 1  # intervals from one checkpoint to the next
    keep: Count = 2  # the last so many checkpoints stay; with 1 there are two while the next is written
