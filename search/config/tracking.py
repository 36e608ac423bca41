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


TRACKERS: dict[str, type[BaseModel]] = {"tensorboard": TensorBoard}


def as_list(given: Any) -> Any:
    """Return one tracker as a list of it."""
    return [given] if isinstance(given, str | dict) else given


Trackers = Annotated[
    list[Annotated[Any, OneOf(TRACKERS)]], BeforeValidator(as_list), Field(default_factory=list)
]
