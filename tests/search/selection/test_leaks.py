"""Rows of the pool that ask or answer what the target does are leaks, whatever else they hold."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal.search.errors import InputError
from shoal.search.load import checked_run
from shoal.search.selection.leaks import IN_TARGET
from shoal.search.selection.select import select_corpus
from shoal.search.selection.signs import signs_of, telling, text_hashes
from tests.search.selection.test_answer_rows import pair_settings

LONG = "an answer of forty tokens, so it is no label"  # longer than a quarter of 64, and than 32


def instruction(*examples: tuple[list[int], list[int]], length: int = 12) -> np.ndarray:
    """Return one row of examples, each of a prompt and an answer."""
    kinds = [(name, kind, length) for name, kind in (("tokens", "<u2"), ("mask", "u1"), ("segment", "<u2"))]
    row, at = np.zeros(1, kinds), 0
    for number, (asked, answered) in enumerate(examples, 1):
        part = slice(at, at + len(asked) + len(answered))
        row["tokens"][0, part], row["segment"][0, part] = asked + answered, number
        row["mask"][0, part] = [0] * len(asked) + [1] * len(answered)
        at = part.stop
    return row


class TestSigns:
    def test_texts_are_known_again_wherever_they_stand_in_a_row(self) -> None:
        tokens = np.array([[1, 2, 3, 1, 2, 0], [9, 1, 2, 3, 2, 1]])
        numbers = np.array([[1, 1, 1, 2, 2, 0], [0, 4, 4, 4, 5, 5]])
        row, number, key, length = text_hashes(tokens, numbers)
        assert row.tolist() == [0, 0, 1, 1] and number.tolist() == [1, 2, 4, 5]
        assert length.tolist() == [3, 2, 3, 2]
        assert key[0] == key[2] and len(set(key.tolist())) == 3  # 1 2 3 is found again, and 2 1 is not 1 2

    def test_examples_of_packed_rows_by_hand(self) -> None:
        """Row 0 asks 5 6 and 7; row 1 asks 7 with the same answer, and row 2 asks 5 6 with another one."""
        rows = np.concatenate(
            [
                instruction(([5, 6], [1, 1, 1]), ([7], [2])),
                instruction(([8], [3]), ([7], [2])),
                instruction(([5, 6], [4])),
            ]
        )
        found = signs_of(rows, [], 2)
        asked, whole = found["asked"], found["whole"]
        assert asked.row.tolist() == [0, 0, 1, 1, 2]
        assert asked.key[0] == asked.key[4] and asked.key[1] == asked.key[3] != asked.key[0]
        assert whole.key[1] == whole.key[3] and len(set(whole.key.tolist())) == 4
        assert found["answered"].row.tolist() == [0]  # others have fewer than 2 tokens

    def test_what_is_asked_with_several_answers_is_no_sign(self) -> None:
        rows = np.concatenate([instruction(([5], [1])), instruction(([5], [2])), instruction(([6], [1]))])
        asked = signs_of(rows, [], 2)["asked"]
        assert telling([asked]).tolist() == [asked.key[2]]


def written(folder: Path, rows: list[dict[str, Any]]) -> str:
    folder.mkdir()
    lines = (json.dumps({**row, "v": [1.0, float(place)]}) for place, row in enumerate(rows))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return str(folder)


SHAPES: dict[str, dict[str, Any]] = {
    "instruction": {"kind": "instruction", "prompt": "q", "answer": "a"},
    "unpacked": {"kind": "instruction", "prompt": "q", "answer": "a", "packed": False},
    "preference": {"kind": "preference", "prompt": "q", "chosen": "a", "rejected": "b"},
    "texts": {},
}
COLUMNS = {
    **{name: {"kind": "text", "length": 64} for name in ("q", "a")},
    "v": {"kind": "tensor", "shape": [2]},
}


def selected(tmp_path: Path, kind: str, leaks: list[dict[str, Any]], bad_share: float = 0.01) -> Any:
    """Choose at random of a pool with leaks in its second group; return the record, and what was said."""
    target = [{"q": f"target asks {n}", "a": f"{LONG} {n}", "b": f"worse {n}"} for n in range(40)]
    pool = [{"q": f"pool asks {n}", "a": f"what {n}", "b": f"no {n}"} for n in range(200)]
    groups = {
        "one": written(tmp_path / "one", pool[:100]),
        "two": written(tmp_path / "two", pool[100:] + leaks),
    }
    data: dict[str, Any] = {
        "corpus": str(tmp_path / "corpus"),
        "groups": groups,
        "validation": 0.1,
        "test": 0.1,
        "bad_share": bad_share,
    }
    policy: dict[str, Any] = {"policy": "dsir"}
    if kind == "texts":
        policy = {"policy": {"kind": "top", "score": "similarity"}}
        policy["scores"] = [{"kind": "similarity", "vectors": "v"}]
        named = {"query": "q", "positive": "a", "width": 8}
        trained: dict[str, Any] = {"trainable": "embedder", "settings": named}
        data |= {"rows": "columns", "columns": COLUMNS}
    else:
        trained = pair_settings(tmp_path / "best") if kind == "preference" else {"trainable": "decoder"}
        data |= {"format": SHAPES[kind], "sequence_length": 128}
    values = {
        "name": "chosen",
        **trained,
        "directory": str(tmp_path / "run"),
        "data": data,
        "selection": {
            **policy,
            "share": 0.2,
            "target": {"like": written(tmp_path / "like", target)},
        },
        "hyperparameters": {"learning_rate": {"kind": "float", "low": 0.001, "high": 0.01}},
    }
    lines: list[str] = []
    return select_corpus(checked_run(values, "run.yaml"), lines.append).record, lines


ASKED = [{"q": f"target asks {n}", "a": f"other answer {n}", "b": "none"} for n in range(8)]
ANSWERED = [{"q": f"who says so, {n}?", "a": f"{LONG} {n}", "b": "none"} for n in range(20, 28)]


@pytest.mark.parametrize("leaks", [ASKED, ANSWERED], ids=["asked", "answered"])
@pytest.mark.parametrize("kind", SHAPES)
def test_what_is_asked_or_answered_leaks_in_one_line(tmp_path, kind: str, leaks: list[dict[str, Any]]) -> None:
    said = (
        r"^selection\.target \(like\): \d+ of its \d+ rows stand in the pool too, whole or by what is asked or "
        r"answered \([1-8] in two\), more than data\.bad_share"
    )
    with pytest.raises(InputError, match=said):
        selected(tmp_path, kind, leaks)


def test_a_few_are_left_out_and_counted(tmp_path) -> None:
    record, lines = selected(tmp_path, "unpacked", [*ASKED, *ANSWERED], bad_share=0.5)
    left_out = record["reasons"]["in the target too"]
    assert 4 < left_out <= 16 and any(f"({left_out} in two)" in line for line in lines)


@pytest.mark.parametrize("kind", SHAPES)
def test_a_pool_that_asks_and_answers_otherwise_does_not_leak(tmp_path, kind: str) -> None:
    _, lines = selected(tmp_path, kind, [{"q": "pool asks 3", "a": "what", "b": "no"}])
    assert not any("stand in the pool too" in line for line in lines)


@pytest.mark.parametrize("side", ["q", "a"])
@pytest.mark.parametrize("kind", SHAPES)
def test_what_much_of_the_pool_has_is_no_leak(tmp_path, kind: str, side: str) -> None:
    """Three rows of the target, of which some are held out, ask or answer what 50 rows of the pool each do."""
    said, other = {"q": "target asks {}", "a": LONG + " {}"}[side], {"q": "a", "a": "q"}[side]
    common = [
        {side: said.format(3 + n % 3), other: f"of the pool alone, {n}", "b": f"no {n}"} for n in range(150)
    ]
    record, lines = selected(tmp_path, kind, common)
    assert IN_TARGET not in record["reasons"]
    assert any("stand in more than 32 rows of the pool each, and are no leaks" in line for line in lines)
