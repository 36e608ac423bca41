"""What may be searched of a sampling rule, and which kept score it may go by: one line for each mistake."""

from pathlib import Path
from typing import Any

import pytest

from shoal.search.errors import InputError
from shoal.search.load import checked_run, load_run

RATE = {"learning_rate": {"kind": "float", "low": 0.001, "high": 0.01}}
SHARE = {"share": {"kind": "float", "low": 0.1, "high": 1.0}}
SCORED = {"policy": {"kind": "threshold", "share": 1.0, "score": "log_ratio"}, "target": {"like": "like"}}


def run_of(searched: Any, sampling: Any, selection: Any = None, **more: Any):
    values = {
        "name": "searched",
        "data": {"groups": {"code": "installed", "docs": "installed"}},
        "hyperparameters": RATE | ({"sampling": searched} if searched else {}),
        "sampling": sampling,
        **({"selection": selection} if selection else {}),
        **more,
    }
    return checked_run(values, "run.yaml")


KEPT = {"rule": "kept_share", "score": "log_ratio"}
SCORES = {**SCORED, "scores": [{"kind": "ngrams"}]}


def test_a_share_and_a_temperature_are_searched() -> None:
    run = run_of({**SHARE, "temperature": {"kind": "float", "low": 0.0, "high": 9.0}}, KEPT, SCORES)
    assert run.space()["sampling"]["share"].high == 1.0
    assert load_run(str(Path(__file__).parents[3] / "examples/selection.yaml")).sampling.score == "log_ratio"


@pytest.mark.parametrize(
    "searched, sampling, selection, wanted",
    [
        (SHARE, {}, None, "hyperparameters.sampling: decoder has no such hyperparameter"),
        (
            {"share": {"kind": "float", "low": 0.0, "high": 1.0}},
            KEPT,
            SCORES,
            "share: share must be above 0",
        ),
        ({"part": SHARE["share"]}, KEPT, SCORES, "sampling.part: kept_share has no such number"),
        (SHARE["share"], KEPT, SCORES, "sampling: must hold domains by name"),
        (
            {"temperature": SHARE["share"]},
            {"rule": "lin_upper"},
            None,
            "sampling: lin_upper weighs within a step",
        ),
        (None, {"rule": "kept_share"}, None, "kept_share goes by scores"),
        (None, KEPT, None, "sampling.score: names a score that `selection:` keeps"),
        (
            None,
            {**KEPT, "scorer": "runs/x/best"},
            SCORES,
            "sampling.scorer: its scores are those of",
        ),
        (
            None,
            {**KEPT, "score": "log_ration"},
            SCORES,
            "selection.scores make no log_ration; did",
        ),
        (None, {"rule": "infobatch", "score": "log_ratio"}, SCORES, "serves rules that go by scores"),
        (None, {"score": "log_ratio"}, SCORES, "sampling.score: needs sampling.rule"),
        (None, {**KEPT, "score": ["log_ratio", "log"]}, SCORES, "selection.scores make no log"),
        ({"blend": SHARE["share"]}, KEPT, SCORES, "sampling.rule.blend: weighs the second of two scores"),
    ],
)
def test_a_mistake_is_one_line(searched, sampling, selection, wanted) -> None:
    with pytest.raises(InputError) as caught:
        run_of(searched, sampling, selection)
    assert any(wanted in line for line in str(caught.value).splitlines()), caught.value
