"""How a population begins with the weights of another run, and the stages of a run of kind `stages`."""

from typing import Annotated, Any, Literal

from pydantic import Field

from shoal.search.config.sections import Name
from shoal.search.config.sections_of import Real, Settings, Share


class Handover(Settings):
    """What becomes of weights that a population begins with; the two shapes say whether they grow or shrink."""

    # a new layer of a deeper decoder writes at first nothing, its share of the copied one's, or all of that
    depth: Literal["zero", "halves", "copy"] = "zero"
    # the optimiser's slots: by default they are kept where the map is exact, and nothing is mixed in
    slots: Literal["keep", "fresh"] | None = None
    fresh: list[str] = Field(default_factory=list)  # patterns of weights that each member draws anew
    freeze: list[str] = Field(default_factory=list)  # patterns of weights that do not train
    # deviation of what is added to inner layers, as a share of their own: else copies stay alike for ever
    noise: Annotated[Real, Field(ge=0)] = 0.0
    mix: str = ""  # an earlier run, or the name of an earlier stage, whose weights of this shape are mixed in
    share: Share = 0.5  # share of the grown weights in the mixture; the rest are those of `mix`


class Begin(Handover):
    """All members begin with the weights of another run's best member, and go on in its rows if it has any."""

    run: str  # the directory of that run, which must be finished, or a folder that it has exported


class OneStage(Handover):
    """One stage: a population that begins with the best of the stage before it."""

    name: Name  # the stage's run is written into the folder of this name
    # sections or keys, such as training.steps, that differ from the file in this stage; null takes one out
    change: dict[str, Any] = Field(default_factory=dict)


def with_change(values: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return a file's values with the changes of a stage made to them."""
    found = dict(values)
    for key, value in change.items():
        first, _, rest = str(key).partition(".")
        if rest:
            value = {rest: value}
        before = found.get(first)
        if value is None:
            found.pop(first, None)
        elif isinstance(value, dict) and isinstance(before, dict) and same_kind(before, value):
            found[first] = with_change(before, value)
        else:
            found[first] = with_change({}, value) if isinstance(value, dict) else value
    return found


def same_kind(before: dict[str, Any], value: dict[str, Any]) -> bool:
    """Say whether a section is with_change in part; one of another kind replaces it."""
    return value.get("kind", before.get("kind")) == before.get("kind")
