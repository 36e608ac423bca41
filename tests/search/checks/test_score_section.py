"""`score:` in a run's file: what cannot rank its members is refused in one line."""

from typing import Any

import pytest
import yaml

pytest.importorskip("transformers")

from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.load import dump, load_run
from tests.helpers.pretrained import causal_run

ASKED = {"kind": "instruction", "prompt": "q", "answer": "a"}
MATCH = {"kind": "exact_match", "tokens": 8}


def load(tmp_path, *sets: str, **changes: Any) -> Run:
    file = tmp_path / "run.yaml"
    (tmp_path / "a.jsonl").write_text('{"q": "one", "a": "two"}\n')
    groups = {"sums": f"{tmp_path}/a.jsonl", "words": f"{tmp_path}/a.jsonl"}
    rate = {"kind": "float", "low": 0.001, "high": 0.03, "log": True}  # a search of ranks has a price
    changes = {"hyperparameters": {"learning_rate": rate}, **changes}
    values = causal_run(str(tmp_path), groups=groups, **changes)
    file.write_text(yaml.safe_dump(values))
    return load_run(str(file), sets)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score": "accuracy"}, "score.kind: must be one of loss, exact_match, choice, got 'accuracy'"),
        ({"score": {"kind": "loss", "every": 2}}, "score.every: unknown key"),
        ({"score": {"kind": "exact_match", "extract": "("}}, "score.extract: must be a regular expression"),
        ({"score": {"kind": "exact_match", "every": 0}}, "score.every: must be at least 1"),
        ({"score": {"kind": "loss", "groups": "sum"}}, "score.groups: sum is no group; did you mean `sums`?"),
        ({"score": {"kind": "loss", "groups": {"sums": -1}}}, "score.groups: must have weights of at least 0"),
        ({"score": "exact_match"}, "score: exact_match needs rows with answers"),
        ({"score": "choice", "data__format": ASKED}, "score.choices: must be the answers to choose from"),
        (
            {"score": {"kind": "choice", "choices": ["a", "b"]}, "data__format": {**ASKED, "choices": "o"}},
            "score.choices: the rows have their own (data.format.choices: o)",
        ),
        (
            {"score": {"kind": "exact_match", "every": 3}, "data__format": ASKED},
            "score.every: with a score at every 3 of 3 intervals nobody would ever copy",
        ),
        (
            {"score": {"kind": "exact_match", "every": 2}, "data__format": ASKED}
            | {"population__backtrack": True, "population__age_window": 0},
            "score.every: must be 1 with population.backtrack",
        ),
        (
            {"score": {"kind": "exact_match", "every": 2}, "data__format": ASKED, "data__exhausted": "stop"},
            "score.every: must be 1 where rows may end (data.exhausted: stop), got 2",
        ),
        (
            {"score": "exact_match", "data__format": ASKED, "stop": {"score": 1.5}},
            "stop.score: must be above 0 and at most 1",
        ),
        ({"stop": {"score": 2.5}}, "stop.score: the score is minus the validation loss, and is never above 0"),
        (
            {"score": {"kind": "exact_match", "tokens": 40}, "data__format": ASKED},
            "score.tokens: a prompt of data.sequence_length (32) and an answer of 40 tokens must be within the "
            "model's 64 positions",
        ),
    ],
)
def test_a_score_that_cannot_rank_is_refused(tmp_path, changes, said) -> None:
    with pytest.raises(InputError) as error:
        load(tmp_path, **changes)
    assert said in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("trainable", "said"),
    [
        ("decoder", "score: exact_match needs rows with answers, so data.format of kind instruction or chat"),
        ("toy", "score: exact_match is of answers to prompts, but toy takes no instruction rows"),
    ],
)
def test_members_that_answer_nothing_are_refused(tmp_path, trainable, said) -> None:
    run = Run.model_validate({"name": "one", "trainable": trainable, "score": "exact_match"})
    from shoal.search.checks.score import check_score

    assert check_score(run).startswith(said)


def test_what_ranks_is_named(tmp_path) -> None:
    assert (run := load(tmp_path)).ranked_by == "validation loss" and run.by_loss
    one = load(tmp_path, "score.groups=sums")
    assert one.ranked_by == "validation loss of sums" and one.by_loss
    both = load(tmp_path, score={"kind": "loss", "groups": {"sums": 3, "words": 1}})
    assert both.ranked_by == "validation loss of 75% sums, 25% words"
    asked = load(tmp_path, score=MATCH, data__format=ASKED)
    assert asked.ranked_by == "exact match" and not asked.by_loss
    assert Run.model_validate(yaml.safe_load(dump(asked))).score == asked.score
