"""What a file does not name is neither imported nor made to check it."""

import gc
import os
import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from shoal.search.config.kinds import DOMAIN, EXPLOIT, AnyExplore, SpaceWithin
from shoal.search.config.sections_of import Sections
from shoal.search.output import quick_imports

TOY = """
name: toy
trainable: toy
hyperparameters: {h0: {kind: float, low: 0, high: 1}, h1: {kind: float, low: 0, high: 1}}
"""
LATE = (
    "shoal.policies.mixers",
    "shoal.policies.selection",
    "shoal.policies.sampling",
    "shoal.trainables.distill",
)
LATE += ("shoal.trainables.objectives.kinds", "shoal.search.models", "shoal.search.checks.mixing", "pyarrow")


def test_a_plain_file_is_checked_without_the_rest(tmp_path) -> None:
    (tmp_path / "toy.yaml").write_text(TOY)
    program = (
        "import sys; from shoal.search.load import load_run; load_run('toy.yaml'); "
        f"print([name for name in {LATE} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_classes_are_looked_up_once_and_sections_made_when_asked_for() -> None:
    asked, made = [], []

    def classes() -> dict[str, type]:
        asked.append(1)
        return {"one": int, "two": str}

    def section(kind: str, written: type) -> str:
        made.append(kind)
        return f"{kind} of {written.__name__}"

    found = Sections(classes, section)
    assert not asked
    assert "one" in found and list(found) == ["one", "two"] and len(found) == 2 and not made
    assert found["two"] == "two of str" and found["two"] == "two of str" and made == ["two"] and asked == [1]


def test_a_place_of_a_late_section_has_its_kind() -> None:
    taken = TypeAdapter(AnyExplore)
    with pytest.raises(ValidationError) as raised:
        taken.validate_python({"kind": "perturb", "resample": "often"})
    assert raised.value.errors()[0]["loc"] == ("perturb", "resample")
    with pytest.raises(ValidationError) as raised:
        taken.validate_python("perturbed")
    assert raised.value.errors()[0]["type"] == "union_tag_invalid" and "resample" in str(raised.value)
    made = taken.validate_python("perturb")
    assert taken.validate_python(made) is made and taken.dump_python(made)["kind"] == "perturb"


def test_spaces_lie_within_spaces() -> None:
    unit = {"kind": "float", "low": 0.0, "high": 1.0}
    space = DOMAIN["space"].model_validate({"a": unit, "b": {"c": unit}})
    assert isinstance(space, SpaceWithin) and isinstance(space.root["b"], SpaceWithin)
    assert space.model_dump() == {"a": {**unit, "log": False}, "b": {"c": {**unit, "log": False}}}
    assert sorted(space.build()) == ["a", "b"] and "none" in EXPLOIT


@pytest.mark.parametrize("given", [None, "3"])
def test_quick_imports_leave_everything_as_it_was(monkeypatch, given: str | None) -> None:
    name = "OPENBLAS_NUM_THREADS"
    monkeypatch.delenv(name, raising=False)
    if given:
        monkeypatch.setenv(name, given)
    with quick_imports():
        assert os.environ[name] == (given or "1") and not gc.isenabled()
    assert os.environ.get(name) == given and gc.isenabled()
    gc.disable()
    try:
        with quick_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
