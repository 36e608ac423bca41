"""STORM as a rule: every row is kept, and the member learns what each loss counts (Heck et al., 2025)."""

from dataclasses import dataclass

from shoal.policies.sampling.interface import Columns, Context, Decision, Ids, Plan, Spec, decision

LEAST_PASSES = 2  # a spread over passes needs two


@dataclass(frozen=True)
class Storm:
    """Weights in (0, 1) by a small network, learnt from the noisy rows alone (Heck et al., 2025).

    The member trains the network: it knows how a row stands among the rows of its class, over passes with
    dropout.
    """

    passes: int = 3  # passes with dropout over each batch, from which come the features of a row
    rate: float = 0.01  # learning rate of the network that weighs
    virtual: float = 0.5  # step of plain SGD by which a batch would move the model

    def __post_init__(self) -> None:
        if self.passes < LEAST_PASSES:
            raise ValueError(f"passes must be at least {LEAST_PASSES}, but got {self.passes}.")
        for name in ("rate", "virtual"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, but got {getattr(self, name)}.")

    @property
    def spec(self) -> Spec:
        return Spec("step", frozenset(), frozenset(), "summary", "mean_count")

    def plan(self, ids: Ids, columns: Columns, context: Context) -> Plan:
        return AllRows()


class AllRows(Plan):
    """Every row once, of equal weight."""

    def decide(self, ids: Ids, columns: Columns) -> Decision:
        return decision(ids >= 0)
