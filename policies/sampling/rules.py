"""The sampling policies by name."""

from policies.sampling.dynamic import Extremes, LinUpper, Quadratic
from policies.sampling.hardness import EasyToHard
from policies.sampling.infobatch import InfoBatch
from policies.sampling.random_subset import RandomSubset
from policies.sampling.seta import SeTa

SAMPLERS: dict[str, type] = {
    "random_subset": RandomSubset,
    "seta": SeTa,
    "infobatch": InfoBatch,
    "lin_upper": LinUpper,
    "quadratic": Quadratic,
    "extremes": Extremes,
    "easy_to_hard": EasyToHard,
}
