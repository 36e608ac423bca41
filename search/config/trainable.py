"""What is known of the class of a run's members before one is made: which rows it takes, what it gives."""

from collections.abc import Mapping
from dataclasses import dataclass

from shoal.search.config.rows import ROW_KINDS
from shoal.search.config.sections_of import Sections, section_of
from shoal.trainables.classifier_settings import AUGMENTED, ClassifierSettings
from shoal.trainables.embedder_settings import EmbedderSettings
from shoal.trainables.settings import PRICED, Cooling, Recipe

FACTS = ("vocabulary", "sequence_length")  # a class of the user's own that takes these gets the corpus's
# all members of a run share these
TRAINING_CONSTANTS = {
    *("steps", "optimiser", "precision", "accumulate", "gradient_checkpointing"),
    *("densities", "mask_scale", "elements", "rounding", "prior_start"),
}
TRAINING_HYPERPARAMETERS = set(Recipe.__dataclass_fields__) - TRAINING_CONSTANTS
# settings of `training:` that super-networks do not use
NOT_IN_SUPERNETWORKS = {
    *("dropout", "label_smoothing", "z_loss", "optimiser", "steps", "momentum", "precision", "accumulate"),
    *("gradient_checkpointing", "density", "densities", "mask_scale", "bits", "elements", "rounding"),
    *("prior", "prior_shape", "prior_start"),
}
DISTILL_HYPERPARAMETERS = (set(Recipe.__dataclass_fields__) - NOT_IN_SUPERNETWORKS) | {"tilt", "inplace"}


@dataclass(frozen=True)
class Trainable:
    """A class as the file's checks and the driver see it; a class of the user's own says it of itself.

    Without `takes` a class brings its own rows.
    """

    takes: tuple[str, ...] = ()  # kinds of rows
    by_row: bool | None = None  # whether its loss is that of each row; None: only the class knows
    by_loss: bool = False  # whether its score is minus its loss, where `score:` asks for no other
    writes: bool = False  # whether it writes answers to prompts
    network: bool = False  # whether it inherits from Network
    hyperparameters: tuple[str, ...] | None = None  # names that may be searched; None: only the class knows
    constants: tuple[str, ...] = ()  # names that `settings:` may give
    searched: tuple[str, ...] = ()  # those of the constants that may be searched
    priced: tuple[str, ...] = ()  # names that trade loss for cost: nobody searches them without a price
    gives: tuple[str, ...] = ()  # an objective gets these from a built-in class; others have no objective

    def __post_init__(self) -> None:
        if odd := sorted(set(self.takes) - set(ROW_KINDS)):
            raise ValueError(
                f"takes must be among {', '.join(ROW_KINDS)}, but has {', '.join(map(repr, odd))}."
            )

    @property
    def takes_rows(self) -> bool:
        return bool(self.takes)


class Declared(section_of(Trainable)):  # type: ignore[misc]
    """What a class of the user's own said when its run began; a run writes it into its own file."""


COOLING = tuple(Cooling.__dataclass_fields__)
DECODER = Trainable(
    takes=("tokens", "instruction"),
    by_row=True,
    by_loss=True,
    writes=True,
    network=True,
    priced=tuple(sorted(PRICED)),
    hyperparameters=tuple(sorted({*TRAINING_HYPERPARAMETERS, *COOLING, "objective"})),
    searched=COOLING,
    gives=("nats", "hinge", "hidden_nats"),
)
CAUSAL_NUMBERS = {*TRAINING_HYPERPARAMETERS, "rank"}
CAUSAL = Trainable(
    takes=("tokens", "instruction"),
    by_row=True,
    by_loss=True,
    writes=True,
    network=True,
    hyperparameters=tuple(sorted({*CAUSAL_NUMBERS, "objective"})),
    searched=("rank",),
    priced=tuple(sorted({*PRICED, "rank"})),
    gives=("nats", "hinge", "hidden_nats"),
)
PREFERRING = Trainable(
    takes=("preference",),
    by_row=True,
    network=True,
    hyperparameters=tuple(sorted({*CAUSAL_NUMBERS, "objective"})),
    searched=("rank",),
    priced=tuple(sorted({*PRICED, "rank"})),
    gives=("chosen", "rejected", "rejected_hinge"),
)
CLASSIFYING = Trainable(
    takes=("columns",),
    by_row=True,
    network=True,
    priced=tuple(sorted(PRICED)),
    hyperparameters=tuple(sorted({*TRAINING_HYPERPARAMETERS, *AUGMENTED, "objective"})),
    constants=tuple(ClassifierSettings.__dataclass_fields__),
    searched=AUGMENTED,
    gives=(
        "logits",
        "features",
        "plain",
        "auxiliary",
        "heads",
        "embedding",
        "view",
        "gate",
        "moved",
        "styles",
        "teacher",
    ),
)
EMBEDDING = Trainable(
    takes=("columns",),
    by_row=True,
    network=True,
    priced=tuple(sorted(PRICED)),
    hyperparameters=tuple(sorted({*TRAINING_HYPERPARAMETERS, "drop", "objective"})),
    constants=tuple(EmbedderSettings.__dataclass_fields__),
    searched=("drop",),
    gives=("embedding", "view", "negatives", "draws", "found"),
)
TOY = Trainable(by_row=False, hyperparameters=("h0", "h1"))
SUPER_NETWORK = Trainable(
    takes=("tokens",), by_row=False, by_loss=True, hyperparameters=tuple(sorted(DISTILL_HYPERPARAMETERS))
)
BUILT_IN: Mapping[str, Trainable] = {
    "decoder": DECODER,
    "causal_lm": CAUSAL,
    "preference": PREFERRING,
    "classifier": CLASSIFYING,
    "embedder": EMBEDDING,
    "toy": TOY,
}
PRETRAINED = ("causal_lm", "preference")  # these train a folder of transformers
# the classes whose constants a file gives under `settings:`, as classes of the user's own have them
SETTINGS = Sections(
    lambda: {"classifier": ClassifierSettings, "embedder": EmbedderSettings},
    lambda kind, made: section_of(made),
)
