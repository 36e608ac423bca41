"""What docs/cluster.md tells the reader to type and to write is there."""

import re
from pathlib import Path

import pytest

from shoal.search.config.sections import Cluster
from tests.search.platform.test_cli import shoal  # noqa: F401 - fixture

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/cluster.md").read_text()
PAGES = GUIDE + (ROOT / "k8s/README.md").read_text()
GROUPS = ("k8s", "grafana")


def typed() -> list[list[str]]:
    """Return the words after `shoal` wherever the pages show a command."""
    blocks = re.findall(r"```\n(.*?)```", PAGES, re.DOTALL)
    lines = [line.partition("#")[0] for block in blocks for line in block.splitlines()]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGES, flags=re.DOTALL))
    found = [re.search(r"(?:^|\$ |= |\.\.\. )shoal (.+)", line) for line in [*lines, *spans]]
    return [match[1].partition("|")[0].split() for match in found if match]


def test_every_command_and_option_of_the_guide_exists(shoal) -> None:  # noqa: F811
    commands = typed()
    assert {words[0] for words in commands} >= {"run", "submit", "status", "k8s", "grafana"}
    for words in commands:
        names = words[:2] if words[0] in GROUPS else words[:1]
        said = shoal(*names, "--help")
        assert said.code == 0, words
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert all(option in said.out for option in options), words


def test_the_guide_names_keys_that_there_are() -> None:
    table = GUIDE[GUIDE.index("| key of `cluster:`") : GUIDE.index("On a cluster the mailbox")]
    named = {
        key for line in table.strip().splitlines()[2:] for key in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert {"spot", "placement"} <= named <= set(Cluster.model_fields)


@pytest.mark.parametrize("place", sorted(set(re.findall(r"`((?:tests|k8s|docs|cluster)/[\w./-]+)`", PAGES))))
def test_every_file_that_the_guide_names_exists(place: str) -> None:
    assert (ROOT / place).exists()
