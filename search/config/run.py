"""The settings of a run, as its file gives them."""

import math
from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from shoal.policies.rules import LEFT_ALONE, Rules
from shoal.policies.schedule import Setting
from shoal.policies.space import Constant, Space
from shoal.search.config.kinds import AnyDomain, AnyObjectives
from shoal.search.config.score import BY_LOSS, AnyRanking, score_in_words
from shoal.search.config.sections import (
    Checkpoint,
    Cluster,
    Data,
    Model,
    Name,
    Population,
    Sampling,
    Scheduled,
    Start,
    Stop,
    Training,
)
from shoal.search.config.sections_of import HyperparameterValues, Late, Real, Settings, WholeNumber
from shoal.search.config.tracking import Trackers
from shoal.search.config.trainable import BUILT_IN, PRETRAINED, SUPER_NETWORK, Declared, Trainable

if TYPE_CHECKING:
    from shoal.policies.mixers.mixer import Groups
    from shoal.search.config.distill import Distill
    from shoal.search.config.mixing import MixingSection
    from shoal.search.config.selection import Refining, Selection
    from shoal.search.config.stages import Begin, OneStage
    from shoal.search.config.swarm import Swarm
else:  # few files have these sections
    Distill = Annotated[Any, Late("shoal.search.config.distill:Distill")]
    MixingSection = Annotated[Any, Late("shoal.search.config.mixing:MixingSection")]
    Refining = Annotated[Any, Late("shoal.search.config.selection:Refining")]
    Selection = Annotated[Any, Late("shoal.search.config.selection:Selection")]
    Begin = Annotated[Any, Late("shoal.search.config.stages:Begin")]
    OneStage = Annotated[Any, Late("shoal.search.config.stages:OneStage")]
    Swarm = Annotated[Any, Late("shoal.search.config.swarm:Swarm")]

RUN_FORMAT: Literal[2] = 2  # format of a run directory; a reader refuses any other

TRAINABLE = rf"^({'|'.join(BUILT_IN)}|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$"

RUN_KINDS = ("population", "distill", "mixture", "stages")  # search.runs.kinds has a module for each


def known_kind(kind: str) -> str:
    if kind not in RUN_KINDS:
        raise ValueError(f"must be one of {', '.join(RUN_KINDS)}, got {kind!r}")
    return kind


class Run(Settings):
    """A whole run, resolved. What must hold between its sections stands in `shoal.search.checks`."""

    name: Name  # the run's name: its directory is runs/NAME unless `directory` says otherwise
    # the purpose of the run: to train a population, to search one mixture, to distil a large model, or to train
    # populations one after another
    kind: Annotated[str, AfterValidator(known_kind)] = "population"
    format: Literal[2] = RUN_FORMAT  # format of the run directory, which Shoal writes itself
    seed: Annotated[WholeNumber, Field(ge=0, lt=2**32)] = 0  # all random numbers of the run follow from it
    directory: str = ""  # where the run is written: a path, or a URI that pyarrow.fs opens
    # a decoder, causal_lm, preference, classifier, embedder, the toy, or a class of your own as module:Class
    trainable: Annotated[str, Field(pattern=TRAINABLE)] = "decoder"
    code: str = ""  # folder of the file with your own class; by default the folder of the YAML file
    # constants of your own class, of a classifier or of an embedder
    settings: HyperparameterValues = Field(default_factory=dict)
    # the loss of a built-in class; of classifier, embedder or preference also a list with weights. Its numbers
    # may be searched
    objective: AnyObjectives = Field(default_factory=list)
    declared: Declared | None = None  # the rows and constants that your own class takes: a run notes them
    data: Data = Data()  # which text members read, and how it becomes rows
    mixing: MixingSection | None = None  # how each member chooses its own mixture of the groups
    model: Model = Model()  # shape of the decoder, a small transformer
    # how members train: the numbers here can be searched under `hyperparameters`
    training: Training = Training()
    score: AnyRanking = BY_LOSS  # members are ranked by it: a loss, or the share of right answers
    # taken off a score for the dearest settings, where settings trade loss for cost; a share of it for others
    price: Annotated[Real, Field(ge=0)] = 0.0
    sampling: Sampling = Sampling()  # which rows of an epoch members train on
    selection: Selection | None = None  # which rows of the corpus are worth training on, chosen before a run
    refine: Refining | None = None  # rounds of training in which a program of yours rewrites rows
    # each searched hyperparameter, with its domain
    hyperparameters: dict[str, AnyDomain] = Field(default_factory=dict)
    # the first hyperparameters of each member, in place of drawn ones
    starts: list[Start] = Field(default_factory=list)
    swarm: Swarm | None = None  # the small runs of kind mixture, and the law that is fitted to them
    begin: Begin | None = None  # the weights of another run that all members begin with
    # the populations of kind stages, one after another; each begins with the best member of the one before
    stages: list[OneStage] = Field(default_factory=list)
    # hyperparameters by step, in place of a search: what `shoal schedule` prints
    schedule: list[Scheduled] = Field(default_factory=list)
    root: Annotated[WholeNumber, Field(ge=0)] = 0  # member 0 starts as member `root` of a population would
    population: Population = Population()  # how many members there are, and by which rules they copy and vary
    distill: Distill | None = None  # the teacher and the students of kind distill
    stop: Stop | None = None  # ends the run as a whole before its last step: by a time, a score, or patience
    cluster: Cluster = Cluster()  # where members live: workers, CPUs, GPUs
    track: Trackers  # where else the run is recorded: `tensorboard`, `mlflow` or `wandb`, one or several
    checkpoint: Checkpoint = Checkpoint()  # how often the run is saved, and how many checkpoints stay

    @property
    def described(self) -> Trainable:
        """What is known of the class of the members."""
        if self.kind == "distill":
            return SUPER_NETWORK
        if self.trainable in BUILT_IN:
            return BUILT_IN[self.trainable]
        return Trainable() if self.declared is None else self.declared.build()

    @property
    def takes_rows(self) -> bool:
        """Whether members train on rows of a corpus."""
        return self.described.takes_rows

    @property
    def by_loss(self) -> bool:
        """Whether the members' score is minus a loss."""
        return self.described.by_loss and self.score.kind == "loss" and not self.price

    @property
    def ranked_by(self) -> str:
        """What ranks the members, in words."""
        if not self.described.by_loss:
            return "score, less its price" if self.price else "score"
        named = score_in_words(self.score)
        if not self.price:
            return named
        return f"minus {named}, less its price" if self.score.kind == "loss" else f"{named}, less their price"

    @property
    def reads_tokens(self) -> bool:
        """Whether these rows are of tokens."""
        return self.takes_rows and self.data.rows != "columns"

    @property
    def pretrained(self) -> bool:
        """Whether members train a pretrained model of transformers."""
        return self.trainable in PRETRAINED and self.kind != "distill"

    @property
    def rows(self) -> str:
        """The kind of rows of the corpus."""
        return str(self.data.rows)

    @property
    def own(self) -> bool:
        """Whether members are of a class of the user's own."""
        return ":" in self.trainable and self.kind != "distill"

    @property
    def has_own_code(self) -> bool:
        """Whether the file names a class of the user's own: of members, of a score, or one that rewrites."""
        scores = self.selection.scores if self.selection is not None else []
        return self.own or self.refine is not None or any(score.kind == "own" for score in scores)

    @property
    def distilling(self) -> Distill:
        """The section of a run of kind distill, which has one."""
        assert self.distill is not None
        return self.distill

    @property
    def small_model(self) -> Model:
        """The model of the small runs of kind mixture; those of a pretrained model train that one."""
        from shoal.search.config.swarm import Swarm

        return self.model if self.trainable == "causal_lm" else (self.swarm or Swarm()).model

    @property
    def unseen(self) -> list[str]:
        """The groups whose losses judge the members, though no member trains on them."""
        return self.mixing.unseen if self.mixing else []

    @property
    def forgotten(self) -> tuple[str, ...]:
        """The groups whose rows members are to forget; they play no part in a score."""
        return tuple(group for term in self.objective if term.kind == "forget" for group in term.groups)

    @property
    def hides(self) -> bool:
        """Whether members find tokens that are hidden, and not the next one."""
        return any(term.kind == "masked" for term in self.objective)

    @property
    def parts(self) -> int:
        """Number of parts of the population; members copy only within a part. Each sub-space is a part."""
        return len(self.distill.spaces) if self.distill else len(self.part_values)

    @property
    def part_values(self) -> list[dict[str, Any]]:
        """The values that are fixed within each part: each combination of those that the file names."""
        given = dict(sorted(self.population.parts.items()))
        return [dict(zip(given, values, strict=True)) for values in product(*given.values())]

    @property
    def part_named(self) -> str:
        """A part of the population, in words."""
        return "sub-space" if self.distill else "part"

    @property
    def label(self) -> str:
        """The run's name on a screen and in metrics; it tells the control without exploits from the run."""
        alone = self.population.exploit.kind == "none" and not self.schedule
        return f"{self.name} without exploits" if alone else self.name

    @property
    def rounds(self) -> int:
        """Number of intervals that each member trains."""
        return self.training.steps // self.population.interval

    @property
    def workers_per_brood(self) -> int:
        """Ray Train workers of each brood: the number in the file, or as many as the members need."""
        given = self.cluster
        if given.members_per_worker is None:
            return given.workers_per_brood or given.workers_per_member
        hosts = math.ceil(self.population.members / (given.broods * given.members_per_worker))
        return hosts * given.workers_per_member

    @property
    def hosts(self) -> int:
        """Number of places for members: a place is a worker, or a group of workers that one member spans."""
        return self.cluster.broods * self.workers_per_brood // self.cluster.workers_per_member

    @property
    def device(self) -> str:
        """Where members train, as torch names it."""
        return "cuda" if self.cluster.gpus_per_worker else "cpu"

    @property
    def shares(self) -> int:
        """Number of shards of each member's weights."""
        return self.cluster.workers_per_member if self.cluster.span == "fsdp" else 1

    def rules(self) -> Rules:
        chosen = self.population
        if chosen.exploit.kind == "none" and chosen.cull is None:
            return LEFT_ALONE
        made: Rules = chosen.build(
            exploit=chosen.exploit.build(),
            explore=chosen.explore.build(),
            age_window=math.inf if chosen.age_window is None else chosen.age_window,
            cull=chosen.cull and chosen.cull.build(),
            steps=self.training.steps,
        )
        return made

    def scheduled(self) -> list[Setting]:
        return [Setting(entry.from_step, entry.hyperparameters) for entry in self.schedule]

    def space(self) -> Space:
        fixed = {name: Constant(values[0]) for name, values in self.population.parts.items()}
        return {name: settings.build() for name, settings in self.hyperparameters.items()} | fixed

    def member_seed(self, number: int) -> int:
        """Return the seed of a member's first weights and of its random numbers."""
        own = self.starts[number].seed if self.starts else number
        return int(np.random.SeedSequence([self.seed, 1, self.root + own]).generate_state(1)[0])

    def groups_of(self, rows: Mapping[str, int]) -> "Groups":
        """Return what mixing policies know of this run; `rows` counts each group's training rows."""
        from shoal.policies.mixers.mixer import Groups

        unseen = tuple(self.unseen)
        trained = {group: count for group, count in rows.items() if group not in unseen}
        return Groups(tuple(trained), tuple(trained.values()), self.training.batch, self.training.steps, unseen)
