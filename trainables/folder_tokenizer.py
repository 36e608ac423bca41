"""The tokenizer in a model's folder. The package `tokenizers` is imported only when one is opened."""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 1 << 32  # uint32 holds so many ids
# one of these ends texts if neither the tokenizer nor the files beside it name an end
ENDS = ("</s>", "<|endoftext|>", "<eos>", "<|end_of_text|>", "[SEP]")
BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "config.json")
PROBES = ("a", "1", ".", "text", "A text of several words.")


class FolderTokenizer:
    """The tokenizer of a model's folder, `tokenizer.json`: rows of the corpus hold its ids."""

    def __init__(self, folder: str):
        self.name = folder
        self.tokenizer = tokenizer_in_folder(folder)
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        ids = self.tokenizer.get_vocab().values()
        self.vocabulary = max([self.tokenizer.get_vocab_size(), *(found + 1 for found in ids)])
        self.starts, last = self._around()
        ends = last[-1:] or list(self._named_ends(folder))
        if not ends or self.vocabulary > LARGEST:
            raise ValueError(
                f"a tokenizer must have a token that ends texts and ids below {LARGEST}, but that of {folder} "
                f"has {'one' if ends else 'none'} and ids up to {self.vocabulary - 1}; name an end as "
                f"`eos_token` in tokenizer_config.json."
            )
        self.end = ends[0]
        added = self.tokenizer.get_added_tokens_decoder()
        words = {number: token.content for number, token in added.items() if token.special}
        self.special = frozenset({*words, self.end})
        self._words = list(words.values())

    def encode(self, text: str) -> NDArray[np.uint32]:
        """Return the ids of a text with the tokens that begin texts, and without those that end them."""
        return np.array([*self.starts, *self._ids(text)], np.uint32)

    def within(self, text: str) -> NDArray[np.uint32]:
        return np.array(self._ids(text), np.uint32)

    def template(self, text: str) -> NDArray[np.uint32]:
        return np.array(self._encoded(text, meant=True), np.uint32)

    def decode(self, ids: Any) -> str:
        text: str = self.tokenizer.decode(np.asarray(ids).reshape(-1).tolist())
        return text

    def _ids(self, text: str) -> list[int]:
        """Return the ids of a text; what is written in it like a special token is plain text.

        Some models know their special tokens as words too: such a word is cut in two.
        """
        ids = self._encoded(text)
        words = [word for word in self._words if len(word) > 1 and word in text]
        if not words or self.special.isdisjoint(ids):
            return ids
        cut = re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))))
        places = [(found.start() + found.end()) // 2 for found in cut.finditer(text)]
        parts = [text[start:end] for start, end in pairwise([0, *places, len(text)])]
        return [each for part in parts for each in self._encoded(part)]

    def _encoded(self, text: str, around: bool = False, meant: bool = False) -> list[int]:
        """Return the ids of a text, with those `around` it; special tokens in it are `meant` or plain text."""
        self.tokenizer.encode_special_tokens = not meant
        try:
            ids: list[int] = self.tokenizer.encode(text, add_special_tokens=around).ids
        except Exception as error:  # tokenizers raises nothing narrower
            raise ValueError(
                f"the tokenizer of {self.name} must be able to write any text, but {error_text(error)}."
            ) from error
        return ids

    def _around(self) -> tuple[list[int], list[int]]:
        """Return the ids that it puts before a text, and those behind it; some put only a beginning."""
        for probe in PROBES:
            bare, whole = self._encoded(probe), self._encoded(probe, around=True)
            for begin in range(len(whole) - len(bare) + 1):
                if bare and whole[begin : begin + len(bare)] == bare:
                    return whole[:begin], whole[begin + len(bare) :]
        raise ValueError(f"a tokenizer must write a text as tokens, but that of {self.name} writes none.")

    def _named_ends(self, folder: str) -> Iterator[int]:
        """Yield the ids that end texts: first as the files beside it say, then by usual names."""
        for file in BESIDE:
            settings = read_json(Path(folder, file)) if Path(folder, file).exists() else {}
            named, numbers = settings.get("eos_token"), settings.get("eos_token_id")
            if isinstance(named, dict):
                named = named.get("content")
            if isinstance(named, str) and (found := self.tokenizer.token_to_id(named)) is not None:
                yield found
            for number in numbers if isinstance(numbers, list) else [numbers]:
                if type(number) is int and 0 <= number < self.vocabulary:
                    yield number
        yield from (found for name in ENDS if (found := self.tokenizer.token_to_id(name)) is not None)


def tokenizer_in_folder(folder: str) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ValueError(
            f"a folder's tokenizer needs the package tokenizers (pip install 'shoal[hf]'), got {folder}."
        ) from error
    file = Path(folder, "tokenizer.json")
    if not file.exists():
        why = "" if file.parent.exists() else "; a name on a hub must be downloaded to a folder first"
        raise ValueError(f"a folder with a tokenizer must hold tokenizer.json, but {folder} does not{why}.")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(
            f"{file} must be a tokenizer of the package tokenizers: {error_text(error)}."
        ) from error


def read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} must be JSON that can be read: {error_text(error)}.") from error
    return found if isinstance(found, dict) else {}


def error_text(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
