"""Held-out questions: read back from rows, or with the answers of a field that are kept beside them."""

import json
from typing import Any

import numpy as np
import pytest

from shoal.search.config.run import Run
from shoal.search.corpus.build import build_corpus, load_corpus
from shoal.search.corpus.manifest import lost, open_store
from shoal.search.corpus.questions import examples_of, questions_of
from shoal.search.errors import InputError
from shoal.trainables.tokenizer import Bytes

COLOURS = ("red", "green", "blue")


def record(number: int) -> dict[str, Any]:
    wanted = COLOURS[number % 3]
    return {
        "q": f"which {number}?{'????' * (number % 2)}",
        "a": wanted,
        "options": [wanted, "a longer answer", "none"],
    }


def run_of(tmp_path, score: Any, choices: str | None = None, builder: str = "local", **data: Any) -> Run:
    for group in ("one", "two"):
        rows = (json.dumps(record(number) | {"group": group}) for number in range(80))
        (tmp_path / f"{group}.jsonl").write_text("\n".join(rows))
    shape = {"kind": "instruction", "prompt": "{group} {q}", "answer": "a"}
    given = {
        "corpus": str(tmp_path / f"corpus-{builder}"),
        "groups": {group: str(tmp_path / f"{group}.jsonl") for group in ("one", "two")},
        "format": {**shape, "choices": choices} if choices else shape,
        "sequence_length": 64,
        "validation": 0.2,
        "test": 0.2,
        "builder": builder,
    } | data
    training = {"evaluation_rows": 4}
    return Run.model_validate(
        {"name": "asked", "trainable": "causal_lm", "data": given, "score": score, "training": training}
    )


def questions(run: Run) -> Any:
    build_corpus(run.data, lambda line: None)
    return questions_of(run)


def text(ids: Any) -> str:
    return Bytes().decode(ids)


def test_an_example_of_a_row_by_hand() -> None:
    # segment 1: "q:" "ab" end; segment 2, a chat: "u" "x" "v" "yz" with nothing that ends it; then padding
    tokens = np.array([113, 58, 97, 98, 256, 117, 120, 118, 121, 122, 256, 256], np.uint16)
    mask = np.array([0, 0, 1, 1, 1, 0, 1, 0, 1, 1, 0, 0], np.uint8)
    segment = np.array([1] * 5 + [2] * 5 + [0] * 2, np.uint16)
    row = {"tokens": tokens, "mask": mask, "segment": segment}
    first, second = examples_of(row, Bytes(), ())
    assert (text(first.prompt), text(first.answer), first.ending.tolist()) == ("q:", "ab", [256])
    # of a chat the last answer is asked, and what was answered before is given
    assert (text(second.prompt), text(second.answer), second.ending.tolist()) == ("uxv", "yz", [])
    # an answer that fills its row to the end may have been cut
    assert len(list(examples_of({name: each[:10] for name, each in row.items()}, Bytes(), ()))) == 1


@pytest.mark.parametrize("packed", [True, False])
def test_questions_are_those_of_held_out_rows(tmp_path, packed: bool) -> None:
    run = run_of(tmp_path, {"kind": "exact_match", "questions": 6})
    shape = run.data.format.model_copy(update={"packed": packed})
    run = run.model_copy(update={"data": run.data.model_copy(update={"format": shape})})
    found = questions(run)
    assert found.ends == {256} and (found.interval, found.steps) == (20, 200)
    asked = {(text(each.prompt), each.answer) for groups in found.by_split.values() for each in groups["two"]}
    known = {(f"two {each['q']}\n", each["a"]) for each in map(record, range(80))}
    assert len(asked) == 12 and asked <= known


def test_choices_of_the_file_end_as_an_answer_does(tmp_path) -> None:
    found = questions(run_of(tmp_path, {"kind": "choice", "choices": list(COLOURS)}))
    for each in found.by_split["validation"]["one"]:
        assert [text(choice) for choice in each.choices] == list(COLOURS)
        assert all(choice[-1] == 256 for choice in each.choices) and COLOURS[each.right] == each.answer


def test_an_answer_that_is_no_choice_is_named(tmp_path) -> None:
    run = run_of(tmp_path, {"kind": "choice", "choices": ["red", "green"], "questions": 20})
    with pytest.raises(InputError, match=r"score\.choices: must have every answer, but .* is 'blue'"):
        questions(run)


@pytest.mark.parametrize("builder", ["local", "ray"])
def test_choices_of_a_field_are_kept_beside_the_rows(tmp_path, here, builder: str) -> None:
    run = run_of(tmp_path, "choice", "options", builder)
    found = questions(run)
    for each in found.by_split["test"]["one"]:
        assert [text(choice) for choice in each.choices] == [each.answer, "a longer answer", "none"]
        assert each.right == 0
    manifest, store = load_corpus(run.data), open_store(run.data)
    splits = manifest.groups["one"].splits
    assert splits["train"].questions is None and len(splits["test"].questions) == 1
    store.delete(splits["test"].questions[0])
    assert list(lost(store, manifest)) == splits["test"].questions


def test_both_builders_ask_the_same(tmp_path, here) -> None:
    both = []
    for builder in ("local", "ray"):
        run = run_of(tmp_path, {"kind": "choice", "questions": 100}, "options", builder)
        found = questions(run).by_split["validation"]["one"]
        both.append(sorted((text(each.prompt), each.answer) for each in found))
    assert both[0] == both[1] and len(both[0]) > 5


def test_a_choice_that_fits_no_row_leaves_its_question_out(tmp_path) -> None:
    run, said = run_of(tmp_path, "choice", "options", sequence_length=28), []
    with pytest.raises(InputError, match=r"no whole validation questions of one within data\.sequence_length"):
        questions(run)
    run = run_of(tmp_path, {"kind": "choice", "questions": 12}, "options", sequence_length=31)
    build_corpus(run.data, lambda line: None)
    questions_of(run, said.append)
    assert any("validation questions of one do not fit data.sequence_length (31)" in line for line in said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("red", "must be a list of texts"),
        (["red"], "must have two different texts or more"),
        (["green", "blue"], "must have the answer among its texts"),
    ],
)
def test_a_record_without_proper_choices_is_put_aside(tmp_path, options, said) -> None:
    run = run_of(tmp_path, "choice", "options")
    rows = [{"q": "q", "a": "red", "options": options, "group": "one"}] * 3
    (tmp_path / "one.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match=said):
        build_corpus(run.data, lambda line: None)


def test_a_format_without_choices_finds_the_corpora_of_before(tmp_path) -> None:
    run = run_of(tmp_path, "exact_match")
    assert "choices" not in run.data.row_settings["format"]
    assert run_of(tmp_path, "choice", "options").data.row_settings["format"]["choices"] == "options"
