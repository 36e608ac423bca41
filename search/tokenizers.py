"""Open the tokenizer that a run's file names; one that cannot be used is an InputError."""

from shoal.search.config.places import unpackaged
from shoal.search.errors import InputError
from shoal.trainables.chat_template import ChatTemplate, chat_template_of
from shoal.trainables.tokenizer import TOKENIZERS, Tokenizer, tokenizer_of


def open_tokenizer(name: str) -> Tokenizer:
    try:
        return tokenizer_of(unpackaged("data.tokenizer", name))
    except ValueError as error:
        raise InputError(f"data.tokenizer: {error}") from error


def open_chat_template(name: str) -> ChatTemplate:
    """Return the chat template beside a tokenizer."""
    if name in TOKENIZERS:
        raise InputError(
            f"data.tokenizer: a chat needs a folder with a tokenizer and its chat template, got {name}"
        )
    try:
        return chat_template_of(name)
    except ValueError as error:
        raise InputError(f"data.tokenizer: {error}") from error
