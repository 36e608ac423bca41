"""The tokenizer in a teacher's folder. The package `tokenizers` is imported only when one is opened."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class FolderTokenizer:
    """The tokenizer of a teacher's folder, `tokenizer.json`: rows of the corpus hold its ids."""

    def __init__(self, folder: str):
        from tokenizers import Tokenizer

        file = Path(folder, "tokenizer.json")
        if not file.exists():
            raise ValueError(f"a folder with a tokenizer must hold tokenizer.json, but {folder} does not.")
        self.name = folder
        self.tokenizer = Tokenizer.from_file(str(file))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.vocabulary = self.tokenizer.get_vocab_size()
        ids = self.tokenizer.encode("").ids  # the ids that it puts around a text
        known = [self.tokenizer.token_to_id(name) for name in ("[SEP]", "</s>", "<|endoftext|>", "<eos>")]
        ends = [*ids[-1:], *(found for found in known if found is not None)]
        if not ends or self.vocabulary > 65536:
            raise ValueError(
                f"a tokenizer must have a token that ends texts and at most 65536 tokens, "
                f"but that of {folder} has {self.vocabulary} tokens and {'one' if ends else 'none'}."
            )
        self.end = ends[0]
        self.start = ids[0] if len(ids) > 1 else None

    def encode(self, text: str) -> NDArray[np.uint16]:
        """Return a text's ids. The token that begins a text is included, if there is one; its end is not."""
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return np.array(ids if self.start is None else [self.start, *ids], np.uint16)

    def decode(self, ids: Any) -> str:
        text: str = self.tokenizer.decode(np.asarray(ids).reshape(-1).tolist())
        return text
