"""Text to token ids and back: a corpus is packed with them, and samples are read with them."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Tokenizer(Protocol):
    """Writes text as ids below `vocabulary`; the id `end` closes a document."""

    @property
    def name(self) -> str: ...
    @property
    def vocabulary(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def special(self) -> frozenset[int]:
        """The ids that no text has, such as those that end texts."""
        ...

    def encode(self, text: str) -> NDArray[np.integer]: ...
    def within(self, text: str) -> NDArray[np.integer]:
        """Return the ids of a text that goes on from another: without those that begin texts."""
        ...

    def template(self, text: str) -> NDArray[np.integer]:
        """Return the ids of a text that a template wrote: special tokens in it are meant as such."""
        ...

    def decode(self, ids: ArrayLike) -> str: ...


class Bytes:
    """The 256 bytes of UTF-8 and one id that no text contains, so nothing need be learnt or downloaded."""

    name = "bytes"
    vocabulary = 257
    end = 256
    special = frozenset({256})

    def encode(self, text: str) -> NDArray[np.uint16]:
        return np.frombuffer(text.encode(), np.uint8).astype(np.uint16)

    def within(self, text: str) -> NDArray[np.uint16]:
        return self.encode(text)

    def template(self, text: str) -> NDArray[np.uint16]:
        return self.encode(text)

    def decode(self, ids: ArrayLike) -> str:
        """Return the text without ends of documents; a character cut at a row's edge becomes U+FFFD."""
        tokens = np.asarray(ids, dtype=np.int64).reshape(-1)
        wrong = tokens[(tokens < 0) | (tokens >= self.vocabulary)]
        if wrong.size:
            raise ValueError(f"Token ids must be in [0, {self.vocabulary}), got {wrong[0]}.")
        return tokens[tokens != self.end].astype(np.uint8).tobytes().decode(errors="replace")


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {"bytes": Bytes}


def tokenizer_of(name: str) -> Tokenizer:
    """Return the tokenizer of this name, or that of a folder which holds `tokenizer.json`."""
    if name in TOKENIZERS:
        return TOKENIZERS[name]()
    from shoal.trainables.folder_tokenizer import FolderTokenizer

    return FolderTokenizer(name)
