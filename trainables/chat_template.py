"""The chat template of a model's folder. The package `transformers` is imported only when one is opened.

A template is a text that Jinja fills in within a sandbox: no code of the folder is executed.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from shoal.trainables.folder_tokenizer import error_text


class ChatTemplate:
    """Writes messages as text, and knows which parts of it are the assistant's."""

    def __init__(self, folder: str):
        self.folder = folder
        try:
            from transformers import PreTrainedTokenizerFast
        except ImportError as error:
            raise ValueError(
                f"a chat template needs the package transformers (pip install 'shoal[hf]'), got {folder}."
            ) from error
        try:
            self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # transformers raises nothing narrower
            raise ValueError(f"the tokenizer of {folder} cannot be opened: {error_text(error)}.") from error
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"a chat template must stand in {folder}, as `chat_template` of tokenizer_config.json or as "
                f"chat_template.jinja, but there is none; without one, use kind: instruction."
            )

    @property
    def special(self) -> list[str]:
        """The texts of the special tokens, which a template writes."""
        added = self.tokenizer.added_tokens_decoder.values()
        return [token.content for token in added if token.special]

    def pieces(self, messages: Sequence[Mapping[str, str]]) -> list[str]:
        """Return the text as pieces in turn: what the assistant gets, what it answers, what it gets, ...

        Messages after its last answer are left out. Raises ValueError where the template refuses the messages,
        or writes earlier ones in another way once later ones follow.
        """
        found: list[str] = []
        for turn, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self.write(messages[:turn], asks=True)
            after, told = self.write(messages[: turn + 1]), "".join(found)
            if not (before.startswith(told) and after.startswith(before)):
                raise ValueError("the chat template writes earlier messages in another way once others follow")
            found += [before[len(told) :], after[len(before) :]]
        return found

    def write(self, messages: Sequence[Mapping[str, str]], asks: bool = False) -> str:
        """Return messages as text; `asks` adds what stands before an answer."""
        try:
            text: Any = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=asks
            )
        except Exception as error:  # a template may raise anything
            raise ValueError(f"the chat template refuses the messages: {error_text(error)}") from error
        return str(text)


@lru_cache(maxsize=2)
def chat_template_of(folder: str) -> ChatTemplate:
    """Return the template of a folder, opened once in a process."""
    return ChatTemplate(folder)
