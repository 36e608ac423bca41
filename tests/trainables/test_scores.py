"""What ranks members: how answers are compared, when weights are scored, and what each group counts for."""

import pytest

from shoal.trainables.scores import ByLoss, Choice, ExactMatch, Questions, group_shares


@pytest.mark.parametrize(
    ("extract", "written", "answer", "right"),
    [
        (None, " 42\n", "42", True),
        (None, "42.", "42", False),
        # the last match counts, here the last number of each
        (r"-?\d+", "7 and 5 are 12", "12", True),
        (r"-?\d+", "12 is 7 and 5", "12", False),
        (r"-?\d+", "no number", "12", False),
        # of a group only what it holds
        (r"#### (-?\d+)", "5 + 7 #### 12", "it is #### 12", True),
        (r"#### (-?\d+)", "12", "#### 12", False),
        # where the right answer has no match, all of it counts
        (r"#### (-?\d+)", "#### 12", "12", True),
        (r"(a)?b", "b", "b", False),
    ],
)
def test_an_answer_is_right_as_far_as_the_expression_looks(extract, written, answer, right) -> None:
    assert ExactMatch(extract=extract).right(written, answer) is right


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: ExactMatch(extract="("), "extract must be a regular expression"),
        (lambda: ExactMatch(tokens=0), "tokens must be at least 1"),
        (lambda: ExactMatch(every=0), "every must be at least 1"),
        (lambda: Choice(choices=("yes", " yes")), "choices must be two different answers or more"),
        (lambda: Choice(choices=("yes",)), "choices must be two different answers or more"),
        (lambda: ByLoss(groups={"a": 0.0}), "groups must have weights of at least 0, one of them above 0"),
        (lambda: ByLoss(groups={"a": -1.0, "b": 2.0}), "groups must have weights of at least 0"),
    ],
)
def test_a_score_that_cannot_be_is_refused(made, said) -> None:
    with pytest.raises(ValueError, match=said):
        made()


def test_groups_weigh_in_a_score_as_given() -> None:
    assert group_shares(None, ["a", "b"]) == {"a": 0.5, "b": 0.5}
    assert group_shares("a", ["a", "b"]) == {"a": 1.0}
    assert group_shares({"a": 3, "b": 1, "c": 0}, []) == {"a": 0.75, "b": 0.25}


def test_weights_are_scored_at_every_so_many_intervals_and_at_the_end() -> None:
    asked = Questions(ExactMatch(every=3), {}, str, frozenset({0}), interval=10, steps=80)
    scored, at = [], 0
    for trained in range(10, 90, 10):
        if asked.due(trained, at):
            scored, at = [*scored, trained], trained
    assert scored == [30, 60, 80]
    # a member that passes ready points over is scored at the next one
    assert asked.due(40, 0)
