"""Open the tokenizer that a run's file names; one that cannot be used is an InputError."""

from shoal.search.errors import InputError
from shoal.trainables.tokenizer import Tokenizer, tokenizer_of


def open_tokenizer(name: str) -> Tokenizer:
    try:
        return tokenizer_of(name)
    except ValueError as error:
        raise InputError(f"data.tokenizer: {error}") from error
