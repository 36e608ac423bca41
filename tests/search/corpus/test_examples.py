"""Instruction and preference rows: masks, packing and segments, each number worked by hand once."""

import json

import numpy as np
import pytest

from shoal.cluster.rows import as_rows
from shoal.cluster.storage import Store
from shoal.search.config.sections import Data
from shoal.search.corpus.build import build_corpus, load_corpus
from shoal.search.corpus.documents import Document, content_digest
from shoal.search.corpus.examples import ExamplePacking, pack_examples, pack_preferences
from shoal.search.errors import InputError
from shoal.trainables.tokenizer import Bytes

KIND = np.dtype("<u2")
END = Bytes.end
INSTRUCTION = {"kind": "instruction", "prompt": "question", "answer": "answer"}


def documents(*examples: list[str]) -> list[Document]:
    contents = [json.dumps(example).encode() for example in examples]
    return [Document(content_digest(content), content) for content in contents]


def packing(length: int, cut: bool = False, packed: bool = True, ends: bool = True) -> ExamplePacking:
    return ExamplePacking(Bytes(), KIND, length, cut, packed, ends)


def test_an_example_by_hand() -> None:
    example = packing(16).example(["Q:", "ab"])  # Q : a b end; the answer's tokens and its end count
    assert example.tokens.tolist() == [81, 58, 97, 98, 256]
    assert example.mask.tolist() == [0, 0, 1, 1, 1]
    chat = packing(16, ends=False).example(["u", "x", "v", "yz"])  # the template writes the ends
    assert chat.tokens.tolist() == [117, 120, 118, 121, 122]
    assert chat.mask.tolist() == [0, 1, 0, 1, 1]


def test_packing_by_hand() -> None:
    """Three examples of 5, 4 and 6 tokens in rows of 10: the first that fits, in the order of digests."""
    given = documents(["Q:", "ab"], ["Q", "ab"], ["Q::", "ab"])
    made = pack_examples(given, packing(10))
    sizes = {each.digest: size for each, size in zip(given, (5, 4, 6), strict=True)}
    ordered = [sizes[each.digest] for each in sorted(given)]
    bins: list[list[int]] = []
    for size in ordered:
        row = next((row for row in bins if sum(row) + size <= 10), None)
        bins.append([size]) if row is None else row.append(size)
    filled = [int((row["segment"] > 0).sum()) for row in made.rows]
    assert sorted(filled) == sorted(map(sum, bins))
    assert made.tokens == 15 and (made.cut, made.dropped) == (0, 0) and len(made.rows) == len(bins) == 2
    for row in made.rows:
        last = int((row["segment"] > 0).sum())
        numbers = row["segment"][:last]
        assert numbers[0] == 1 and set(np.diff(numbers)) <= {0, 1}  # 1, 1, ..., 2, 2, ...
        assert (row["tokens"][last:] == END).all() and not row["mask"][last:].any()
        for number in range(1, int(numbers.max()) + 1):
            of_segment = row["mask"][row["segment"] == number]
            assert of_segment.tolist()[-3:] == [1, 1, 1] and not of_segment[:-3].any()  # a b end
    assert (np.diff(made.ids) > 0).all()
    alone = pack_examples(given, packing(10, packed=False))
    assert len(alone.rows) == 3 and alone.rows["segment"].max() == 1 and alone.tokens == 15


def test_rows_do_not_depend_on_the_order_of_their_examples() -> None:
    given = documents(*([f"question {number}", "an answer" * (number % 5 + 1)] for number in range(60)))
    one, other = pack_examples(given, packing(96)), pack_examples(given[::-1], packing(96))
    assert np.array_equal(one.rows, other.rows) and np.array_equal(one.ids, other.ids)
    assert one.tokens / one.rows["tokens"].size > 0.85  # little is padding


@pytest.mark.parametrize(
    ("example", "cut", "kept", "counts"),
    [
        (["Q:", "abcdef"], False, None, (0, 1)),
        # Q : a b c d, without the end: 6 tokens
        (["Q:", "abcdef"], True, [0, 0, 1, 1, 1, 1], (1, 0)),
        (["Q:?!?!", "ab"], True, None, (0, 1)),  # the whole answer would be cut away
        (["Q:?!?", "ab"], True, [0, 0, 0, 0, 0, 1], (1, 0)),
        (["", "abcdef"], True, [1, 1, 1, 1, 1, 1], (1, 0)),
    ],
)
def test_what_is_too_long_is_cut_or_dropped_and_never_without_its_answer(example, cut, kept, counts) -> None:
    made = pack_examples(documents(example), packing(6, cut=cut))
    assert (made.cut, made.dropped) == counts
    assert [row.tolist() for row in made.rows["mask"]] == ([] if kept is None else [kept])


def test_a_preference_row_by_hand() -> None:
    made = pack_preferences(documents(["Q\n", "yes", "n"]), packing(8))
    (row,) = made.rows
    assert row["chosen"].tolist() == [81, 10, 121, 101, 115, END, END, END]
    assert row["chosen_mask"].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    assert row["rejected"].tolist() == [81, 10, 110, END, END, END, END, END]
    assert row["rejected_mask"].tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    assert made.tokens == 10
    dropped = pack_preferences(documents(["Q\n", "yes", "n" * 9]), packing(8))
    assert len(dropped.rows) == 0 and dropped.dropped == 1
    # the same in a row's length: nothing is left by which one is the better
    assert pack_preferences(documents(["Q\n", "y" * 9, "y" * 10]), packing(8, cut=True)).dropped == 1
    cut = pack_preferences(documents(["Q\n", "yes", "n" * 9]), packing(8, cut=True))
    assert cut.cut == 1 and cut.rows["rejected_mask"][0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]


def settings(path, lines: list[dict], builder: str = "local", **changes) -> Data:
    (path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plain = {
        "corpus": str(path / "corpus"),
        "groups": {"sums": str(path / "in.jsonl")},
        "format": INSTRUCTION,
        "sequence_length": 64,
        "validation": 0.2,
        "test": 0.2,
        "builder": builder,
    }
    return Data(**(plain | changes))


def sums(count: int) -> list[dict]:
    return [{"question": f"{a} + {a % 7} = ?", "answer": str(a + a % 7), "id": a} for a in range(count)]


@pytest.mark.parametrize("builder", ["local", "ray"])
@pytest.mark.parametrize("packed", [True, False])
def test_both_builders_make_instruction_rows_and_count_what_is_too_long(
    tmp_path, here, builder, packed
) -> None:
    lines = [*sums(100), {"question": "long " * 40, "answer": "1"}, {"question": "null", "answer": None}]
    told: list[str] = []
    given = settings(tmp_path, lines, builder, format={**INSTRUCTION, "packed": packed})
    manifest = build_corpus(given, told.append)
    group = manifest.groups["sums"]
    assert (group.documents, group.skipped, group.dropped, group.cut) == (101, 1, 1, 0)
    assert "too long for data.sequence_length: 1 dropped" in told[0]
    assert manifest.row_type.names == ("tokens", "mask", "segment")
    assert load_corpus(given) == manifest
    examples, rows = 0, 0
    for split in group.splits.values():
        for file in split.files:
            found = as_rows(Store(given.corpus).read_table(file), manifest.row_type)
            examples, rows = examples + int(found["segment"].max(axis=1).sum()), rows + len(found)
            # each segment ends with the answer and its end
            assert (found["tokens"][found["mask"] == 1] == END).sum() == found["segment"].max(axis=1).sum()
    assert examples == 100 and (rows < 50 if packed else rows == 100)


def test_the_same_corpus_is_found_by_its_format_alone(tmp_path) -> None:
    given = settings(tmp_path, sums(100))
    build_corpus(given, lambda line: None)
    other = given.model_copy(
        update={"format": settings(tmp_path, sums(100), format={**INSTRUCTION, "between": " "}).format}
    )
    with pytest.raises(InputError, match=r"format is .* there"):
        load_corpus(other)


@pytest.mark.parametrize("builder", ["local", "ray"])
@pytest.mark.parametrize(
    ("changes", "lines", "said"),
    [
        ({"sequence_length": 8}, sums(50), "not one of 50 examples fits data.sequence_length (8)"),
        (
            {"sequence_length": 8, "format": {**INSTRUCTION, "too_long": "cut"}},
            sums(50),
            "with a token of its answer; raise data.sequence_length.",
        ),
        (
            {"format": {**INSTRUCTION, "prompt": "questoin"}},
            sums(50),
            "50 x no field 'questoin' (data.format); did you mean `question`?",
        ),
        (
            {"format": {**INSTRUCTION, "prompt": "{id}: {qestion}"}},
            sums(50),
            "no field 'qestion' (data.format)",
        ),
        ({}, [{"question": "a?", "answer": " "}] * 50, "empty: data.format.answer"),
        ({}, [{"question": ["a?"], "answer": "b"}] * 50, "must hold text or a number, got list"),
    ],
)
def test_what_is_wrong_with_examples_is_one_line(tmp_path, here, builder, changes, lines, said) -> None:
    with pytest.raises(InputError) as raised:
        build_corpus(settings(tmp_path, lines, builder, **changes), lambda line: None)
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_plain_text_has_no_examples(tmp_path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("just words")
    given = settings(tmp_path, sums(9), groups={"words": str(tmp_path / "text")})
    with pytest.raises(InputError, match=r"plain text, but data\.format needs records with"):
        build_corpus(given, lambda line: None)


def test_preference_rows_of_a_folder(tmp_path) -> None:
    lines = [{"prompt": f"{a}?", "chosen": f"yes {a}", "rejected": "no"} for a in range(60)]
    manifest = build_corpus(settings(tmp_path, lines, format="preference"), lambda line: None)
    assert manifest.row_type.names == ("chosen", "chosen_mask", "rejected", "rejected_mask")
    assert sum(split.rows for split in manifest.groups["sums"].splits.values()) == 60


def test_a_pair_of_equal_answers_is_put_aside(tmp_path) -> None:
    lines = [{"prompt": f"{a}?", "chosen": f"yes {a}", "rejected": "no"} for a in range(60)]
    lines[7]["rejected"] = lines[7]["chosen"]
    manifest = build_corpus(settings(tmp_path, lines, format="preference"), lambda line: None)
    group = manifest.groups["sums"]
    assert group.skipped == 1 and "are the same text, so none is the better one" in group.reasons
