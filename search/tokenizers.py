"""The tokenizer that a run's file names, opened; what is wrong with one is the user's to put right."""

from shoal.search.errors import InputError
from shoal.trainables.tokenizer import Tokenizer, tokenizer_of


def open_tokenizer(name: str) -> Tokenizer:
    try:
        return tokenizer_of(name)
    except ValueError as error:
        raise InputError(f"data.tokenizer: {error}") from error
