"""Every command of `shoal` that a page shows is one, and those that train nothing are run."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from shoal.search.cli import app, run_command_line
from tests.helpers.directories import TOY, written
from tests.helpers.pretrained import tiny_model

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "k8s/README.md", *sorted((ROOT / "docs").glob("*.md"))]
GROUPS = ("k8s", "grafana")
# these need no Ray and no cluster; `corpus` and `select` build rows, which tests of their own do
LIGHT = ("compare", "doctor", "explain", "export", "init", "plan", "report", "schedule", "schema", "status")
LIGHT += ("track", "validate")
MEANT = {"FILE": "toy.yaml", "DIR": "one", "OTHER": "two", "KEY": "population.interval", "KIND": "text"}
OF_OTHER_RUNS = {"--student", "--merge"}  # options for runs that the toy is none of


def shown() -> list[tuple[str, list[str]]]:
    """Return each command that a page shows, as the page's name and the words after `shoal`."""
    found = []
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
        lines = [line.partition("#")[0] for block in blocks for line in block.splitlines()]
        spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        for line in [*lines, *spans]:
            command = re.search(r"(?:^|\$ |= |bin/|\.\.\. )shoal ([a-z].*)", line.strip())
            if command:
                found.append((page.name, re.split(r"\\?\||[()]", command[1])[0].split(" > ")[0].split()))
    return found


SHOWN = shown()


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """Return a command, and the words behind its name."""
    group = get_command(app)
    if words[0] in GROUPS:
        return group.commands[words[0]].commands.get(words[1]) if words[1:] else None, words[2:]
    return group.commands.get(words[0]), words[1:]


def test_the_pages_show_commands() -> None:
    pages = {page for page, _ in SHOWN}
    assert pages >= {"README.md", "cluster.md", "finetune.md", "python.md", "selection.md", "distillation.md"}
    assert {words[0] for _, words in SHOWN} >= {*LIGHT, "run", "resume", "replay", "submit", "k8s"}


@pytest.mark.parametrize(("page", "words"), SHOWN, ids=[f"{page}: {' '.join(words)}" for page, words in SHOWN])
def test_a_shown_command_is_one_and_has_its_options(page: str, words: list[str]) -> None:
    command, rest = command_of(words)
    assert command is not None, words
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= options | {"--help"}


def meant(given: str) -> str:
    """Return what a word stands for in the folder of the test."""
    word = given.strip("[]")
    if word.endswith((".yaml", ".yml")):
        return "toy.yaml"
    place = word.removeprefix("/")
    return MEANT.get(word) or ("one" if place.startswith("runs/") and place.count("/") == 1 else word)


def light() -> list[list[str]]:
    found = []
    for _, words in SHOWN:
        bare = len(words) == 1 and words[0] not in (
            "doctor",
            "schema",
            "status",
        )  # the name alone, in a sentence
        if words[0] in LIGHT and not bare and not OF_OTHER_RUNS & set(words):
            targets = [place + 1 for place, word in enumerate(words) if word == "--to"]
            found.append([word if place in targets else meant(word) for place, word in enumerate(words)])
    return [list(each) for each in dict.fromkeys(map(tuple, found))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("pages")
    written(place / "one", 4)
    written(place / "two", 4, "seed=9", "name=other")
    (place / "toy.yaml").write_text(Path(TOY).read_text())
    (place / "runs").symlink_to(place)
    (place / "data").mkdir()
    (place / "data/asked.jsonl").write_text('{"question": "what?", "answer": "that"}\n' * 40)
    return place


@pytest.mark.parametrize("words", light(), ids=" ".join)
def test_a_shown_command_that_trains_nothing_runs(words, folder, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    for file in ("text.yaml", "finetune.yaml"):
        (folder / file).unlink(missing_ok=True)  # `init` writes no file that is there
    typed = ["compare", "one", "two"] if words[0] == "compare" else words
    if "finetune" in words:
        pytest.importorskip("transformers")
        typed = [tiny_model() if word.startswith("models/") else word for word in words]
    monkeypatch.setattr("sys.argv", ["shoal", *typed])
    with pytest.raises(SystemExit) as ended:
        run_command_line()
    allowed = (0, 1) if words[0] == "doctor" else (0,)  # it may find something in the way
    assert (ended.value.code or 0) in allowed, capsys.readouterr()


def test_every_file_that_a_page_trains_is_in_a_test() -> None:
    others = [file for file in (ROOT / "tests").rglob("*.py") if file != Path(__file__)]
    tests = "".join(file.read_text() for file in others)
    files = {word for _, words in SHOWN if words[0] not in LIGHT for word in words if word.endswith(".yaml")}
    assert {"examples/toy.yaml", "examples/demo.yaml", "examples/finetune.yaml"} <= files
    own = {"classifier.yaml", "digits.yaml", "run.yaml"}  # what docs/own-model.md and docs/cluster.md write
    assert [file for file in sorted(files - own) if file not in tests] == []


def test_words_are_as_a_shell_has_them() -> None:
    assert all(shlex.split(" ".join(words)) == words for _, words in SHOWN)
