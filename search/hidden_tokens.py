"""Exports that were trained on hidden tokens: they look both ways, and do not find the next token."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.trainables.pretrained.settings import Pretrained


def finds_hidden(told: Mapping[str, Any]) -> bool:
    """Say whether a model was trained on hidden tokens, by what its export tells of it."""
    return any(term.get("kind") == "masked" for term in told.get("objective", []))


def looks_both_ways(folder: str) -> bool:
    """Say whether a folder holds a causal model of transformers, or an adapter of one, that looks both ways."""
    beside, config = (noted(Path(folder, name)) for name in ("shoal.json", "config.json"))
    return finds_hidden(beside or config.get("shoal", {})) or not config.get("is_causal", True)


def noted(file: Path) -> dict[str, Any]:
    """Return what a file of an export says; nothing where it has no such file."""
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def refuse_hidden(key: str, folder: str, named: str) -> None:
    """Raise InputError where a model that is to find the next token looks both ways."""
    if looks_both_ways(folder):
        raise InputError(
            f"{key}: must be a model that finds the next token, but {named} was trained on hidden ones."
        )


def check_direction(run: Run, given: Pretrained) -> None:
    """Raise InputError where members that find the next token would begin with a model that looks both ways."""
    if run.hides:
        return
    refuse_hidden("model.path", given.path, run.model.path or given.path)
    if given.begin:
        refuse_hidden("model.begin", given.begin, run.model.begin)
