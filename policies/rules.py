"""The rules of a population, by name and together."""

import math
from dataclasses import dataclass

from shoal.policies.bayesian import Bayesian
from shoal.policies.exploit import Exploit, NoExploit, Threshold, Tournament, Truncation, TTest, WinnerTakesAll
from shoal.policies.explore import Additive, Explore, Perturb, Resample
from shoal.policies.fire import Fire
from shoal.policies.frequencies import MultipleFrequency
from shoal.policies.halving import Cull

EXPLOITS: dict[str, type] = {
    "truncation": Truncation,
    "t_test": TTest,
    "tournament": Tournament,
    "winner_takes_all": WinnerTakesAll,
    "threshold": Threshold,
    "multiple_frequency": MultipleFrequency,
    "fire": Fire,
    "none": NoExploit,
}
EXPLORES: dict[str, type] = {
    "perturb": Perturb,
    "resample": Resample,
    "additive": Additive,
    "bayesian": Bayesian,
}


@dataclass(frozen=True)
class Rules:
    """How a population evolves.

    `least` members must have a score before anybody copies; a member is compared only with those whose
    step is within `age_window` of its own; before step `burn_in` nobody copies. A member that reports no
    finite score has failed: it becomes a clone of one of the best quarter where the exploit rule leaves it
    alone, but no more than `replacements` times; then it stays as it is. So does one that falls behind on a
    rung of `cull`, as often as that happens. With `backtrack` clones are of the best weights of all earlier
    decisions, where these are better than the donor's of now. Weights that have trained `steps` train no more.
    """

    exploit: Exploit = Truncation()
    explore: Explore = Perturb()
    least: int = 2
    age_window: float = math.inf
    replacements: int = 8
    burn_in: int = 0
    cull: Cull | None = None
    backtrack: bool = False
    steps: float = math.inf

    def __post_init__(self) -> None:
        if self.least < 2:
            raise ValueError(f"least must be at least 2 members, but got {self.least}.")
        if self.age_window < 0:
            raise ValueError(f"age_window must be at least 0 steps, but got {self.age_window}.")
        if self.burn_in < 0:
            raise ValueError(f"burn_in must be at least 0 steps, but got {self.burn_in}.")
        if self.replacements < 0:
            raise ValueError(f"replacements must be at least 0, but got {self.replacements}.")


LEFT_ALONE = Rules(NoExploit(), replacements=0)
