"""The section `selection:` of a run's file: which rows of the corpus are worth training on."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from shoal.policies.selection.refine import Refine
from shoal.policies.selection.rules import SELECTORS
from shoal.search.config.sections import Name, Source
from shoal.search.config.sections_of import (
    Count,
    Flag,
    OneOf,
    Real,
    Sections,
    Settings,
    Share,
    WholeNumber,
    section_of,
)

SELECTOR = Sections(lambda: SELECTORS)
AnySelector = Annotated[Any, OneOf(SELECTOR)]
OwnClass = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
MIX = "mix"  # the column that `selection.mix` adds
# columns of the decisions: a score of such a name would stand in their place
DECIDED_COLUMNS = ("row_id", "group", "copies", "margin", "reason", "duplicate_of")


class NgramScore(Settings):
    """Log-ratio of hashed n-grams of tokens, in the target over in the pool; a column for each target."""

    kind: Literal["ngrams"]
    grams: Annotated[Count, Field(le=8)] = 2  # tokens of the longest n-gram
    buckets: Count = 10_000  # into so many the n-grams are hashed
    pseudo: Annotated[Real, Field(ge=0)] = 0.0  # added to the target's counts, for a small target


class LossScore(Settings):
    """Mean loss of each row under a model: an exported decoder, or a causal model of transformers."""

    kind: Literal["loss"]
    model: str  # folder of an exported model, such as runs/NAME/best, or of transformers
    column: Name = "loss"  # name of the column that it adds


class DifferenceScore(Settings):
    """The loss under one model less that under another; as a share of the latter if `relative`."""

    kind: Literal["difference"]
    model: str  # folder of an exported model, or of transformers
    base: str  # folder of the model that it is compared with
    relative: Flag = True
    column: Name = "score"  # name of the column that it adds


class EmbeddingScore(Settings):
    """The mean of a model's last hidden states; of an exported embedder its embedding of the query."""

    kind: Literal["embedding"]
    model: str  # folder of an exported decoder, classifier or embedder, or of any model of transformers
    column: Name = "embedding"  # name of the column that it adds


class GradientScore(Settings):
    """A random projection of each row's gradient under a language model, of pool and target."""

    kind: Literal["gradients"]
    model: str  # folder of an exported decoder, or of a causal model of transformers
    width: Annotated[Count, Field(le=8192)] = 256  # numbers that each gradient is projected to
    column: Name = "sketch"  # name of the column that it adds


class ClassScore(Settings):
    """The chance of one class under a classifier of transformers."""

    kind: Literal["class"]
    model: str  # folder of transformers
    label: str | WholeNumber = 1  # the class's name in the model's config.json, or its number
    column: Name = "probability"  # name of the column that it adds


class InfluenceScore(Settings):
    """By how much training on a row lowers the target's losses (EK-FAC: Grosse et al., 2023), by target.

    Curvature is measured on some rows of the pool, with labels that the model draws.
    """

    kind: Literal["influence"]
    model: str  # folder of an exported decoder, or of a causal model of transformers
    layers: tuple[str, ...] = ("*",)  # patterns of the names of linear layers, such as "*.mlp.*"
    over: Literal["mean", "max", "min"] = "mean"  # how a row's influences on a target's rows become one number
    fit_rows: Count = 1000  # rows of the pool on which the curvature is measured
    rank: Count = 32  # singular vectors that are kept of each target row, where `over` is not mean
    column: Name = "influence"  # name of the column that it adds


class HeadScore(Settings):
    """What a model loses without the heads that look facts up, as a share of its loss (Hua et al., 2025)."""

    kind: Literal["heads"]
    model: str  # folder of an exported decoder, or of a causal model of transformers
    share: Share = 0.05  # this share of all heads, those that look up best, attend to all tokens alike
    probes: Count = 100  # rows with a value to look up, by which the heads are found
    column: Name = "score"  # name of the column that it adds


class ChesScore(Settings):
    """How likely DPO on a pair is to lower the better answer's likelihood too (CHES: Razin et al., 2025)."""

    kind: Literal["ches"]
    model: str  # folder of a causal model of transformers that has the corpus's tokenizer
    normalised: Flag = True  # by the answers' lengths
    column: Name = "ches"  # name of the column that it adds


class SimilarityScore(Settings):
    """The cosine of a row's vector to the nearest rows of the target; of several targets the likest counts."""

    kind: Literal["similarity"]
    vectors: Name = "embedding"  # a column of vectors: of a score before this one, or of the rows themselves
    over: Literal["nearest", "mean"] = "nearest"  # compare with the target's nearest rows, or with their mean
    nearest: Count = 1  # so many nearest rows count, by the mean of their cosines
    column: Name = "similarity"  # name of the column that it adds


class TableScore(Settings):
    """Columns of a Parquet file that has a `row_id`, made by whatever program."""

    kind: Literal["table"]
    path: str  # place of the Parquet file


class OwnScore(Settings):
    """A class of your own, made without arguments, whose `score(rows)` returns columns by name."""

    kind: Literal["own"]
    made: OwnClass  # the class, as module:Class


SCORES: dict[str, type[Settings]] = {
    "ngrams": NgramScore,
    "loss": LossScore,
    "difference": DifferenceScore,
    "embedding": EmbeddingScore,
    "gradients": GradientScore,
    "class": ClassScore,
    "influence": InfluenceScore,
    "heads": HeadScore,
    "ches": ChesScore,
    "similarity": SimilarityScore,
    "table": TableScore,
    "own": OwnScore,
}
AnyScore = Annotated[Any, OneOf(SCORES)]
# the columns that each kind of score adds; None where only the scorer itself knows
COLUMNS_OF: dict[str, tuple[str, ...] | None] = {
    "ngrams": ("log_ratio", "length"),
    "table": None,
    "own": None,
}


def columns_made(score: Any) -> tuple[str, ...] | None:
    """Return the columns that a score adds, or None where only the scorer itself knows."""
    return (score.column,) if hasattr(score, "column") else COLUMNS_OF[score.kind]


def twice_made(names: Iterable[str], before: Iterable[str], mixed: bool) -> str:
    """Say what is wrong with names of columns that a score adds behind those of others; "" if nothing."""
    taken = set(before) | ({MIX} if mixed else set())
    for name in sorted(names):
        if name in DECIDED_COLUMNS:
            return f"makes the column {name}, a name that decisions have; give it another"
        if name in taken:
            other = "selection.mix" if name == MIX and mixed else "a score before it"
            return f"makes the column {name}, which {other} makes too; give it another name"
    return ""


class Duplicates(Settings):
    """Near duplicates are dropped before anything is scored (Broder, 1997: MinHash)."""

    similarity: Annotated[Real, Field(gt=0, lt=1)] = 0.8  # least that the sets of shingles of two rows share
    shingle: Count = 8  # tokens
    # hashes of a row's signature; more tell similarities apart more finely
    permutations: Annotated[Count, Field(ge=16)] = 128


class Refining(section_of(Refine)):  # type: ignore[misc]
    """Train, flag rows by the model's own signals, have them rewritten, and train anew: `shoal refine FILE`."""

    made: OwnClass  # class of your own with `rewrite(asked)`, as module:Class; it may have `rate(texts)` too
    base: str  # folder of the model before training, an exported one or one of transformers


def target_place(corpus: str) -> str:
    """Return where the target of a pool's corpus goes."""
    return f"{corpus}-target"


class Selection(Settings):
    """How rows are chosen out of the corpus, how many, and by which scores."""

    policy: AnySelector  # the rule that chooses rows by their scores
    rows: Count | None = None  # rows to choose
    share: Annotated[Real, Field(gt=0, le=1)] | None = None  # or the share of all training rows
    target: dict[Name, Source] = Field(default_factory=dict)  # sources like those of data.groups
    scores: list[AnyScore] = Field(default_factory=list)  # by default ngrams, where the policy needs them
    mix: dict[str, Real] = Field(default_factory=dict)  # weights of scores; makes the column `mix`
    duplicates: Duplicates | None = None  # drop rows that are nearly equal to others
    corpus: str = ""  # where the chosen rows go; by default data.corpus with -selected behind it
    chosen: str = ""  # hash of the selection that a run began with; the run sets it

    def columns(self) -> set[str] | None:
        """Return the columns that the scores add, or None where that is not known before."""
        found = {MIX} if self.mix else set()
        for score in self.all_scores():
            own = columns_made(score)
            if own is None:
                return None
            found |= set(own)
        return found

    def all_scores(self) -> list[Any]:
        if self.scores or "log_ratio" not in self.policy.build().needs:
            return list(self.scores)
        return [NgramScore(kind="ngrams")]
