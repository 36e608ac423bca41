"""The selection policies by name."""

from shoal.policies.selection.cuts import RandomRows, ScoreThreshold, Top
from shoal.policies.selection.dsir import Dsir
from shoal.policies.selection.influence import Influence
from shoal.policies.selection.quantise import Quantise
from shoal.policies.selection.small_loss import SmallLoss
from shoal.policies.selection.tarot import Tarot

SELECTORS: dict[str, type] = {
    "random": RandomRows,
    "top": Top,
    "threshold": ScoreThreshold,
    "dsir": Dsir,
    "quantise": Quantise,
    "small_loss": SmallLoss,
    "tarot": Tarot,
    "influence": Influence,
}
