"""Chats as a tokenizer's own template writes them, in pieces that are given and answered in turn."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers", reason="the extra shoal[hf] is not installed")
pytest.importorskip("tokenizers", reason="the extra shoal[hf] is not installed")

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from shoal.cluster.rows import as_rows
from shoal.cluster.storage import Store
from shoal.search.config.sections import Data
from shoal.search.corpus.build import build_corpus
from shoal.search.errors import InputError
from shoal.search.tokenizers import open_chat_template
from shoal.trainables.chat_template import ChatTemplate

WORDS = {
    "<unk>": 0,
    "<s>": 1,
    "</s>": 2,
    "<|user|>": 3,
    "<|assistant|>": 4,
    "hi": 5,
    "ho": 6,
    "so": 7,
    "what": 8,
}
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }} </s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
# it writes only the last question and its answer
FORGETFUL = "{% for m in messages[-2:] %}<|{{ m['role'] }}|> {{ m['content'] }} </s>{% endfor %}"
STRICT = "{{ raise_exception('roles must alternate') }}"
CHAT = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "ho"},
    {"role": "user", "content": "what"},
    {"role": "assistant", "content": "so so"},
    {"role": "user", "content": "hi"},
]


def folder(path: Path, template: str | None = TEMPLATE) -> str:
    path.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in WORDS if word[0] == "<"])
    tokenizer.save(str(path / "tokenizer.json"))
    told = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (path / "tokenizer_config.json").write_text(
        json.dumps(told | ({"chat_template": template} if template else {}))
    )
    return str(path)


def test_a_chat_by_hand(tmp_path) -> None:
    assert ChatTemplate(folder(tmp_path)).pieces(CHAT) == [
        "<s><|user|> hi </s><|assistant|> ",
        "ho </s>",
        "<|user|> what </s><|assistant|> ",
        "so so </s>",
    ]


def test_rows_of_chats_learn_the_answers_alone(tmp_path) -> None:
    tokenizer = folder(tmp_path / "tokenizer")
    chats = [{"messages": [{"role": "user", "content": f"hi x{number}"}, *CHAT[1:]]} for number in range(40)]
    chats += [{"messages": CHAT[:1]}, {"messages": "hi"}]  # no answer; no messages
    # in the template's text it would be the token, and end the message
    chats += [{"messages": [{"role": "user", "content": "hi </s> ho"}, *CHAT[1:]]}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    settings = Data(
        corpus=str(tmp_path / "corpus"),
        groups={"chats": str(tmp_path / "in.jsonl")},
        format={"kind": "chat", "packed": False},
        tokenizer=tokenizer,
        sequence_length=16,
        validation=0.2,
        test=0.2,
    )
    manifest = build_corpus(settings, lambda line: None)
    group = manifest.groups["chats"]
    assert (group.documents, group.skipped, settings.rows) == (40, 3, "instruction")
    assert "the text of the special token </s>" in group.reasons
    (row, *_) = as_rows(Store(settings.corpus).read_table(group.splits["train"].files[0]))
    # <s> user hi x </s> assistant | ho </s> | user what </s> assistant | so so </s>
    assert row["tokens"].tolist() == [1, 3, 5, 0, 2, 4, 6, 2, 3, 8, 2, 4, 7, 7, 2, 2]
    assert row["mask"].tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0]
    assert row["segment"].tolist() == [1] * 15 + [0]
    assert row["tokens"].dtype == np.uint16


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (FORGETFUL, "writes earlier messages in another way"),
        (STRICT, "refuses the messages: roles must alternate"),
    ],
)
def test_a_template_that_cannot_be_used_for_a_chat_says_so(tmp_path, template, said) -> None:
    with pytest.raises(ValueError, match=said):
        ChatTemplate(folder(tmp_path, template)).pieces(CHAT)


def test_a_folder_without_a_template_is_one_line(tmp_path) -> None:
    with pytest.raises(InputError, match=r"data.tokenizer: a chat template must stand in .*kind: instruction"):
        open_chat_template(folder(tmp_path, None))
    with pytest.raises(InputError, match="needs a folder with a tokenizer and its chat template, got bytes"):
        open_chat_template("bytes")
