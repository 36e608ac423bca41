"""HARD (2023, arXiv 2305.14890): augmentations are learnt that show where student and teacher disagree.

They teach the student the teacher's invariances. Student and augmentor take turns, and two thresholds
keep the difficulty between them.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

MEAN_DECAY = 0.9  # factor of the old mean disagreement at each step
MOST_LOGIT = 30.0  # larger logits are cut to it, so that a disagreement is bounded


class Turn(NamedTuple):
    """Whose turn it is, and the running mean of the disagreement, which decides when the turn changes."""

    student: bool = True
    mean: float | None = None


def disagreement(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of logits `(rows, classes)`."""
    bounded = [logits.clamp(-MOST_LOGIT, MOST_LOGIT) for logits in (student, teacher)]
    return functional.mse_loss(bounded[0], bounded[1])


def student_loss(student: nn.Module, teacher: nn.Module, augmented: Tensor) -> Tensor:
    """Return the disagreement on augmented rows; only the student gets a gradient."""
    rows = augmented.detach()
    with torch.no_grad():
        target = teacher(rows)
    return disagreement(student(rows), target)


def augmentor_loss(
    student: nn.Module, teacher: nn.Module, rows: Tensor, augmented: Tensor, consistency: float = 1.0
) -> Tensor:
    """Return the augmentor's loss: low where the student disagrees and the teacher's answer stays the same.

    The term with weight `consistency` keeps the teacher's answer close to the one on the original rows. The
    gradient reaches only the augmentor that made `augmented`, neither student nor teacher.
    """
    before, after = output_of_frozen(teacher, rows), output_of_frozen(teacher, augmented)
    return consistency * disagreement(after, before) - disagreement(output_of_frozen(student, augmented), after)


def output_of_frozen(module: nn.Module, rows: Tensor) -> Tensor:
    """Return a module's output for rows, with a gradient for the rows but not for the module's weights."""
    fixed = {name: weight.detach() for name, weight in module.named_parameters()}
    made: Tensor = functional_call(module, fixed, (rows,))
    return made


def next_turn(turn: Turn, disagreed: float, low: float, high: float) -> Turn:
    """Let the student go on until the mean disagreement is below `low`, the augmentor until it is above `high`.

    Raises ValueError unless 0 < low < high.
    """
    if not 0 < low < high:
        raise ValueError(f"thresholds must be 0 < low < high, got {low=}, {high=}.")
    mean = disagreed if turn.mean is None else MEAN_DECAY * turn.mean + (1 - MEAN_DECAY) * disagreed
    if turn.student and mean < low:
        return Turn(False, mean)
    if not turn.student and mean > high:
        return Turn(True, mean)
    return Turn(turn.student, mean)


class Shift(nn.Module):
    """An augmentor of signals `(rows, length)`. It learns how likely each shift of at most `most` places is.

    It draws one shift for each row, but gradients pass as if it were a mixture of all (Jang et al., 2017).
    """

    def __init__(self, most: int):
        super().__init__()
        self.shifts = range(-most, most + 1)
        start = torch.zeros(len(self.shifts))
        start[most] = 2.0  # the augmentor begins near the identity
        self.logits = nn.Parameter(start)

    def forward(self, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        moved = torch.stack([rows.roll(shift, dims=-1) for shift in self.shifts], dim=1)
        uniform = torch.rand(len(rows), len(self.shifts), generator=generator).clamp(1e-6, 1 - 1e-6)
        noise = -(-uniform.log()).log()
        soft = (self.logits + noise.to(self.logits)).softmax(dim=-1)
        hard = functional.one_hot(soft.argmax(dim=-1), len(self.shifts)).to(soft)
        weights = hard + soft - soft.detach()
        return (weights[..., None] * moved).sum(dim=1)
