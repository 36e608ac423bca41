"""The pages name what there is: files of this repository, and places on pages."""

import re
from pathlib import Path

import pytest

from shoal.policies.space import DOMAINS
from shoal.search.config.kinds import EXPLOIT, EXPLORE, OBJECTIVE, SAMPLER
from shoal.search.config.mixing import POLICY
from shoal.search.config.run import RUN_KINDS
from shoal.search.config.score import RANKINGS
from shoal.search.config.selection import SCORES, SELECTOR
from shoal.search.config.trainable import BUILT_IN

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "k8s/README.md"], key=lambda page: page.as_posix()
)
FOLDERS = "policies|trainables|cluster|search|tests|docs|k8s|examples|benchmarks"
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def anchors(page: Path) -> set[str]:
    """Return what a link may name after `#`, as GitHub makes it out of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(rf"(?<![\w./-])(?:{FOLDERS})/[\w./-]*\w", page.read_text())
    missing = sorted({name for name in named if not (ROOT / name).exists()})
    assert not missing, missing


@pages
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        place, _, anchor = link.partition("#")
        if "://" in place:
            continue
        target = page.parent / place if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_run_file_of_the_readme_is_the_toy() -> None:
    shown = re.search(r"```yaml\n(name: toy\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown is not None
    assert (ROOT / "examples/toy.yaml").read_text().endswith(shown[1])


CHOICES = {
    "kind": RUN_KINDS,
    "trainable": [*BUILT_IN, "module:Class"],
    "objective": OBJECTIVE,
    "hyperparameters": DOMAINS,
    "population.exploit": EXPLOIT,
    "population.explore": EXPLORE,
    "score": RANKINGS,
    "selection.policy": SELECTOR,
    "selection.scores": SCORES,
    "mixing.policy": POLICY,
    "sampling.rule": SAMPLER,
}


@pytest.mark.parametrize("key", CHOICES)
def test_the_readme_lists_what_a_key_can_name(key: str) -> None:
    row = re.search(rf"^\| `{key}` \|[^|]*\|(.*)\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert row is not None
    assert set(re.findall(r"`([\w:]+)`", row[1])) == set(CHOICES[key])
