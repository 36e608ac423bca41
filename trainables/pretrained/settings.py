"""Plain settings of pretrained models, readable without torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class LowRank:
    """An adapter (LoRA; Hu et al., 2021): `alpha / rank * up @ down` is added to the weight of each target."""

    rank: int = 8  # a searched `rank` uses the first of so many stored ones, and keeps alpha / rank
    alpha: float = 16.0  # the adapter is scaled by alpha / rank
    dropout: float = 0.0  # share of the adapter's inputs that is left out; a searched `dropout` replaces it
    targets: tuple[str, ...] = ("q_proj", "v_proj")  # last parts of the names of the linear layers
    # fila: with what only the rows to forget need, for objective forget (Cha et al., 2025); drawn: with nothing
    begin: Literal["drawn", "fila"] = "drawn"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, but got {self.rank}.")
        if not self.alpha > 0:
            raise ValueError(f"alpha must be above 0, but got {self.alpha}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, but got {self.dropout}.")
        if not self.targets:
            raise ValueError("targets must name at least one layer, such as q_proj.")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


@dataclass(frozen=True)
class Pretrained:
    """Which model, and what of it trains: an adapter if there is one, else all weights that are not frozen."""

    path: str  # a folder of transformers
    adapter: LowRank | None = None
    gradient_checkpointing: bool = False  # layers are computed again in the backward pass, to save memory
    begin: str = ""  # the folder of an exported adapter, which members begin with
    fresh: tuple[str, ...] = ()  # patterns of weights that each member draws from its own seed
    freeze: tuple[str, ...] = ()  # patterns of weights that do not train

    def __post_init__(self) -> None:
        if self.adapter is not None and (self.fresh or self.freeze):
            raise ValueError(
                "fresh and freeze must be left out with an adapter: all but the adapter is frozen."
            )


def own_config(folder: str) -> dict[str, Any] | None:
    """Return the config.json of a folder that holds an exported decoder of ours; None for any other folder."""
    try:
        found: Any = json.loads(Path(folder, "config.json").read_text())
    except (OSError, ValueError):
        return None
    ours = isinstance(found, dict) and found.get("trainable") == "decoder" and "shape" in found
    return found if ours else None
