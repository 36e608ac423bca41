"""The sampling policies by name."""

from shoal.policies.sampling.dynamic import Extremes, LinUpper, Quadratic
from shoal.policies.sampling.hardness import EasyToHard
from shoal.policies.sampling.infobatch import InfoBatch
from shoal.policies.sampling.kept_share import KeptShare, ScoreCut
from shoal.policies.sampling.learnt_weights import Storm
from shoal.policies.sampling.random_subset import RandomSubset
from shoal.policies.sampling.seta import SeTa
from shoal.policies.sampling.small_loss import SmallLossRows

SAMPLERS: dict[str, type] = {
    "random_subset": RandomSubset,
    "seta": SeTa,
    "infobatch": InfoBatch,
    "lin_upper": LinUpper,
    "quadratic": Quadratic,
    "extremes": Extremes,
    "easy_to_hard": EasyToHard,
    "kept_share": KeptShare,
    "score_cut": ScoreCut,
    "small_loss": SmallLossRows,
    "storm": Storm,
}
