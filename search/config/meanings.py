"""What each key of a run's file means: the comment at its field, or a sentence of its class's docstring."""

import ast
import inspect
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from shoal.search.config.sections_of import Settings


def meanings_of(section: type) -> dict[str, str]:
    """Return key -> meaning of a section's keys, as far as anything is said of them."""
    found: dict[str, str] = {}
    for written in classes_of(section):
        names = list(getattr(section, "model_fields", {}))
        told = sentences_about(inspect.getdoc(written) or "", names)
        found = {**told, **found, **comments_of(written)}
    return found


def classes_of(section: type) -> list[type]:
    """Return the classes in which a section's keys are written: a dataclass first, if it is made of one."""
    made: Any = getattr(section, "made_of", None)
    above = [each for each in section.__mro__[::-1] if issubclass(each, Settings) and each is not Settings]
    dataclasses = [each for each in made.__mro__[::-1] if each is not object] if made else []
    return [*dataclasses, *above]


def comments_of(written: type) -> dict[str, str]:
    """Return field -> its comment: behind it, or in lines of its own above it."""
    try:
        file = inspect.getsourcefile(written)
    except TypeError:
        return {}
    defined = classes_in(file).get(written.__qualname__) if file else None
    if defined is None:  # a section that was made by pydantic stands in no file
        return {}
    said = comments_in(str(file))
    found = {}
    for node in defined.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        lines = [*range(node.lineno, (node.end_lineno or node.lineno) + 1)]
        while said.get(lines[0] - 1, ("", False))[1]:
            lines.insert(0, lines[0] - 1)
        if words := [said[line][0] for line in lines if line in said]:
            found[node.target.id] = " ".join(words)
    return found


@cache
def classes_in(file: str) -> dict[str, ast.ClassDef]:
    """Return the classes at the top of a file, by name."""
    tree = ast.parse(Path(file).read_text("utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


@cache
def comments_in(file: str) -> dict[int, tuple[str, bool]]:
    """Return line -> its comment, and whether the line holds nothing else."""
    with open(file, "rb") as source:
        tokens = [each for each in tokenize.tokenize(source.readline) if each.type == tokenize.COMMENT]
    return {
        each.start[0]: (each.string.lstrip("# "), each.line.lstrip().startswith("#"))
        for each in tokens
        if not each.string.startswith("# type:")
    }


def sentences_about(text: str, names: list[str]) -> dict[str, str]:
    """Return name -> the first sentence of a docstring that has the name in backquotes."""
    whole = list(sentences(text))
    found = {name: next((each for each in whole if f"`{name}`" in each), "") for name in names}
    return {name: said for name, said in found.items() if said}


def sentences(text: str) -> Iterator[str]:
    plain = " ".join(text.split())
    yield from (each.rstrip(".") for each in re.split(r"(?<=[.:])\s+(?=[A-Z`])", plain) if each)
