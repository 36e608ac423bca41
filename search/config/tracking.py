"""The section `track:` of a run's file: where else a run is recorded, for who has a tracker at hand."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from shoal.search.config.sections_of import OneOf, Settings


class TensorBoard(Settings):
    """Event files that TensorBoard reads, one run for each member."""

    kind: Literal["tensorboard"]
    directory: str = (
        ""  # where they are written: a path; by default the folder tensorboard of the run directory
    )


class MLflow(Settings):
    """Runs of an MLflow server, one for each member, in one experiment."""

    kind: Literal["mlflow"]
    uri: str = ""  # the server, such as http://mlflow:5000; by default MLFLOW_TRACKING_URI of the environment
    experiment: str = ""  # name of the experiment; by default the name of the run


class WeightsAndBiases(Settings):
    """Runs of Weights & Biases, one for each member, in one group."""

    kind: Literal["wandb"]
    project: str = ""  # name of the project; by default the name of the run
    entity: str = ""  # the team or user that owns it; by default WANDB_ENTITY of the environment


TRACKERS: dict[str, type[BaseModel]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


def as_list(given: Any) -> Any:
    """Return one tracker as a list of it."""
    return [given] if isinstance(given, str | dict) else given


Trackers = Annotated[
    list[Annotated[Any, OneOf(TRACKERS)]], BeforeValidator(as_list), Field(default_factory=list)
]
