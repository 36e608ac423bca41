"""The objectives by the names that a run's file gives them."""

from typing import Any

from shoal.trainables.objectives.adore import Adore
from shoal.trainables.objectives.adversarial_style import AdversarialStyle
from shoal.trainables.objectives.arbitrary_pairs import ArbitraryPairs
from shoal.trainables.objectives.contrastive import Contrastive
from shoal.trainables.objectives.cross_entropy import CrossEntropy
from shoal.trainables.objectives.dice import Dice
from shoal.trainables.objectives.domain_heads import DomainHeads
from shoal.trainables.objectives.dpo import DPO
from shoal.trainables.objectives.forget import Forget
from shoal.trainables.objectives.future_teacher import FutureTeacher
from shoal.trainables.objectives.guided import Guided
from shoal.trainables.objectives.hard_negatives import HardNegatives, TeacherScores
from shoal.trainables.objectives.individual_temperatures import IndividualTemperatures
from shoal.trainables.objectives.inverted_hinge import InvertedHinge
from shoal.trainables.objectives.label_proportions import LabelProportions
from shoal.trainables.objectives.loki import Loki
from shoal.trainables.objectives.masked import MaskedTokens
from shoal.trainables.objectives.naive_bayes import NaiveBayes
from shoal.trainables.objectives.robust_rows import RobustRows
from shoal.trainables.objectives.shrunk_classes import ShrunkClasses
from shoal.trainables.objectives.star import Star
from shoal.trainables.objectives.worst_rows import WorstRows
from shoal.trainables.objectives.z_margin import ZMargin

OBJECTIVES: dict[str, Any] = {  # name -> a subclass of `NamedLoss`
    "cross_entropy": CrossEntropy,
    "dice": Dice,
    "z_margin": ZMargin,
    "loki": Loki,
    "worst_rows": WorstRows,
    "contrastive": Contrastive,
    "individual_temperatures": IndividualTemperatures,
    "arbitrary_pairs": ArbitraryPairs,
    "guided": Guided,
    "star": Star,
    "hard_negatives": HardNegatives,
    "teacher_scores": TeacherScores,
    "adore": Adore,
    "naive_bayes": NaiveBayes,
    "domain_heads": DomainHeads,
    "shrunk_classes": ShrunkClasses,
    "robust_rows": RobustRows,
    "future_teacher": FutureTeacher,
    "adversarial_style": AdversarialStyle,
    "label_proportions": LabelProportions,
    "dpo": DPO,
    "inverted_hinge": InvertedHinge,
    "forget": Forget,
    "masked": MaskedTokens,
}
