"""The settings of a run, as its file gives them."""

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from policies.rules import ALONE, Rules
from policies.schedule import Setting
from policies.space import Space
from search.checks import CHECKS, FOR_MIXTURES
from search.kinds import AnyDomain, Settings
from search.mixing import Mixing
from search.runs import known_kind
from search.sections import Checkpoint, Cluster, Data, Model, Name, Population, Scheduled, Start, Training
from search.swarm import Swarm

FORMAT: Literal[1] = 1  # of the run directory; a reader refuses a higher one


class Run(Settings):
    """A whole run, resolved."""

    name: Name
    kind: Annotated[str, AfterValidator(known_kind)] = "population"
    format: Literal[1] = FORMAT
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    directory: str = ""
    trainable: Annotated[str, Field(pattern=r"^(decoder|toy|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$")] = "decoder"
    data: Data = Data()
    mixing: Mixing | None = None
    model: Model = Model()
    training: Training = Training()
    hyperparameters: dict[str, AnyDomain] = Field(default_factory=dict)
    starts: list[Start] = Field(default_factory=list)
    swarm: Swarm | None = None
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
    def label(self) -> str:
        """The run's name on a screen and in metrics, where its control is another run."""
        alone = self.population.exploit.kind == "none" and not self.schedule
        return f"{self.name} without exploits" if alone else self.name

    @property
    def rounds(self) -> int:
        """Number of intervals that each member trains."""
        return self.training.steps // self.population.interval

    def rules(self) -> Rules:
        chosen = self.population
        if chosen.exploit.kind == "none" and chosen.cull is None:
            return ALONE
        return Rules(
            chosen.exploit.build(),
            chosen.explore.build(),
            least=chosen.least,
            age_window=math.inf if chosen.age_window is None else chosen.age_window,
            burn_in=chosen.burn_in,
            cull=chosen.cull.build() if chosen.cull else None,
            replacements=chosen.replacements,
        )

    def settings(self) -> list[Setting]:
        return [Setting(entry.from_step, entry.hyperparameters) for entry in self.schedule]

    def space(self) -> Space:
        return {name: settings.build() for name, settings in self.hyperparameters.items()}

    @model_validator(mode="after")
    def check(self) -> "Run":
        checks = FOR_MIXTURES if self.kind == "mixture" else CHECKS
        problems = [problem for check in checks if (problem := check(self))]
        if problems:
            raise ValueError("\n".join(problems))
        return self
