"""The settings of the built-in embedder, readable without torch."""

from dataclasses import dataclass
from typing import Literal

from shoal.trainables.objectives.interface import require

ROLES = (
    "query",
    "positive",
    "guide_query",
    "guide_positive",
    "negatives",
    "there",
    "teacher",
    "row",
    "document",
)


@dataclass(frozen=True)
class EmbedderSettings:
    """How vectors of queries and of what answers them become embeddings, and by what these are scored."""

    width: int = 64  # numbers of an embedding
    # texts: an exported decoder (runs/NAME/best), which then looks both ways, or a folder of an encoder of
    # transformers, also as package:NAME/FOLDER, whose states are as wide as `width`; by default blocks of a
    # decoder that begin anew
    encoder: str = ""
    layers: int = 0  # hidden layers before it; 0: a linear projection. Of texts: blocks of attention
    hidden: int = 128  # numbers of a hidden layer; of texts: of a token between blocks
    towers: Literal["one", "two"] = "one"  # whether queries and positives share the network
    slices: tuple[
        int, ...
    ] = ()  # the first so many numbers are embeddings too (Kusupati et al., 2022: Matryoshka)
    query: str = "query"  # column of the query's vector
    positive: str = "positive"  # column of the vector that answers it
    guide_query: str = "guide_query"  # column of the query's vector by a guide, for objectives that look at it
    guide_positive: str = "guide_positive"  # column of the guide's vector of the positive
    negatives: str = (
        "negatives"  # column of several hard negatives, a tensor of (most, numbers) or a list of texts
    )
    there: str = "there"  # column that is 1 for those that exist; by default all do
    teacher: str = "teacher"  # column of a teacher's scores of the positive and of each negative
    row: str = "row"  # column of the row's number, for objectives that keep something of each row
    index: str = ""  # .npy file of frozen documents (documents, width), among which queries search
    document: str = "document"  # column of the number of the document that answers the query
    score: Literal["recall", "mrr", "ndcg"] = "recall"  # recall at 1, reciprocal rank at 10, gain at 10
    drop: float = 0.0  # share of a vector's numbers, or of a text's tokens, that training leaves out

    def __post_init__(self) -> None:
        for name in ("width", "hidden"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1", getattr(self, name))
        require(self.layers >= 0, "layers must be at least 0", self.layers)
        require(0 <= self.drop < 1, "drop must be at least 0 and below 1", self.drop)
        fit = all(1 <= each < self.width for each in self.slices)
        require(fit, f"slices must be at least 1 and below width ({self.width})", self.slices)

    @property
    def roles(self) -> dict[str, str]:
        """Return role -> column."""
        return {name: getattr(self, name) for name in ROLES}

    @property
    def read(self) -> tuple[str, ...]:
        """Return the roles that every embedder reads."""
        return ("query", "document") if self.index else ("query", "positive")
