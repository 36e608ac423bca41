"""One word for one thing: few public names mean two things, and comments are sentences, units or shapes."""

import pytest

from tests.helpers.house import HANGING, ambiguous, comments, sources

FEW = 15  # names that several modules may share, such as `run_new` and `run_on`, which are one protocol


def test_few_names_are_defined_by_two_modules() -> None:
    found = ambiguous(sources())
    assert len(found) < FEW, found


def test_the_folders_below_search_share_no_name() -> None:
    lower = {name: text for name, text in sources().items() if not name.startswith("search.")}
    assert not ambiguous(lower)


@pytest.mark.parametrize("package", ["policies", "cluster", "trainables", "search"])
def test_no_comment_hangs_behind_a_name(package: str) -> None:
    texts = {name: text for name, text in sources().items() if name.startswith(f"{package}.")}
    said = [(name, comment) for name, text in texts.items() for comment, _ in comments(text)]
    assert said, "the package has comments"
    assert not [(name, comment) for name, comment in said if comment.startswith(HANGING)]
