"""Models that read rows: an exported decoder, or a folder of transformers, whose own tokenizer may be another.

A model of transformers with the corpus's own tokenizer reads the rows as they are. Any other one reads their
texts, written as its own tokens; rows then differ in length, and those of like length are computed together.
Only safetensors are read, and nothing in a folder is run.
"""

import hashlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.cluster.storage import Store
from shoal.search.config.places import is_place
from shoal.search.errors import InputError
from shoal.search.exported import check_exported, read_exported, trainable_of
from shoal.search.hidden_tokens import refuse_hidden
from shoal.search.models import INSTALL_MODELS, base_of, config_of, local_folder
from shoal.search.selection.corpora import TokenRows
from shoal.search.tokenizers import open_tokenizer

BYTES_AT_ONCE = 1 << 24  # bytes
CONFIGS = ("config.json", "adapter_config.json")  # a whole model has the first, an adapter the second
CAUSAL, STATES, CLASSES = "AutoModelForCausalLM", "AutoModel", "AutoModelForSequenceClassification"


class Reader(NamedTuple):
    """A model, and how it reads rows of the corpus's tokens."""

    module: Any
    encode: Callable[[TokenRows], list[TokenRows]] | None = None  # None: it reads rows as they are
    key: str = ""  # its place in the file, for messages

    def judge(self, rows: TokenRows, judged: Callable[[Any, TokenRows], NDArray[Any]]) -> NDArray[Any]:
        """Return what `judged(module, rows)` finds of each row."""
        if self.encode is None:
            return judged(self.module, rows)
        found: NDArray[Any] | None = None
        for places, part in self.parts(rows):
            values = judged(self.module, part)
            if found is None:
                found = np.empty((len(rows), *values.shape[1:]), values.dtype)
            found[places] = values
        return judged(self.module, rows[:0].astype(np.int64)) if found is None else found

    def parts(self, rows: TokenRows) -> list[tuple[NDArray[np.int64], TokenRows]]:
        """Return rows as the model reads them, in parts of like length, and the places of each part."""
        from shoal.trainables.scoring import by_length

        if self.encode is None:
            return [(np.arange(len(rows)), rows)]
        if rows.dtype.names is not None:
            raise InputError(
                f"{self.key}: reads tokens of its own, but of an instruction row only the corpus's are known "
                f"to count or not; take a model with the corpus's tokenizer.json."
            )
        return list(by_length(self.encode(rows)))


def open_reader(key: str, model: str, tokenizer: str, length: int, device: str, kind: str = CAUSAL) -> Reader:
    """Return a model that reads rows of `length` tokens of a corpus's tokenizer."""
    if trainable_of(model):
        return Reader(open_decoder(key, model, length, device))
    from shoal.trainables.pretrained.folder import is_causal, judging_model
    from shoal.trainables.pretrained.peft_files import add_adapter

    folder, base = model_and_base(key, model)
    if trainable_of(base):  # an adapter of an exported decoder, which learnt preferences
        decoder = open_decoder(key, base, length, device)
        try:
            add_adapter(decoder, folder)
        except Exception as error:  # files and shapes raise many kinds
            said = str(error).strip().splitlines()
            raise InputError(f"{key}: {model} is no adapter of {base}: {said[0] if said else error}") from error
        return Reader(decoder)
    try:
        module = judging_model(base, kind, device)
        if folder != base:
            add_adapter(module, folder)
    except Exception as error:  # transformers raises many kinds
        said = str(error).strip().splitlines()
        raise InputError(f"{key}: {model} cannot be opened as {kind}: {said[0] if said else error}") from error
    if kind == CAUSAL and not is_causal(module):
        raise InputError(f"{key}: {model} is no causal model: what it says of a token depends on later ones.")
    if not Path(folder, "tokenizer.json").exists():
        folder = base
    own = None if same_tokens(tokenizer, folder) else encoder_of(key, folder, base, tokenizer, kind)
    return Reader(module, own, key)


def model_and_base(key: str, model: str) -> tuple[str, str]:
    """Return a model's folder, and that of the whole model that it is, or that its adapter belongs to."""
    folder = local_folder(key, model)
    if base_of(folder) == folder:
        return folder, folder
    return folder, local_folder(key, base_of(folder))


def open_decoder(key: str, folder: str, length: int, device: str) -> Any:
    from safetensors.numpy import load

    from shoal.trainables.decoder import trained_decoder
    from shoal.trainables.settings import DecoderShape

    shape = DecoderShape(**read_exported(key, folder)["shape"])
    return trained_decoder(shape, load(Store(folder).read("model.safetensors")), length, device)


def same_tokens(tokenizer: str, folder: str) -> bool:
    """Say whether a corpus's tokenizer is the one in a model's folder."""
    ours, theirs = Path(tokenizer, "tokenizer.json"), Path(folder, "tokenizer.json")
    return ours.exists() and theirs.exists() and ours.read_bytes() == theirs.read_bytes()


def encoder_of(
    key: str, folder: str, base: str, tokenizer: str, kind: str
) -> Callable[[TokenRows], list[TokenRows]]:
    """Return a function that writes rows of a corpus's tokens as those of a model, with its special tokens."""
    from shoal.trainables.folder_tokenizer import tokenizer_in_folder

    ours, most = open_tokenizer(tokenizer), config_of(base, key).get("max_position_embeddings")
    try:
        theirs = tokenizer_in_folder(folder)
    except ValueError as error:
        raise InputError(f"{key}: {error}") from error
    theirs.no_padding()
    if isinstance(most, int):
        theirs.enable_truncation(most)
    else:
        theirs.no_truncation()

    def encode(rows: TokenRows) -> list[TokenRows]:
        texts = [ours.decode(row) for row in rows]
        found = [each.ids for each in theirs.encode_batch(texts, add_special_tokens=True)]
        # a row of no tokens is read as one token, whose loss counts nothing
        return [np.array(ids or [0], np.int64) for ids in found]

    return encode


def check_readable(key: str, model: str, tokenizer: str, vocabulary: int, kind: str) -> None:
    """Raise InputError where a model is not there, or cannot read rows of these tokens."""
    here = is_place(model) and "://" not in model
    if here and not any(os.path.exists(os.path.join(model, name)) for name in CONFIGS):
        raise InputError(
            f"{key}: must be the folder of an exported model or of transformers, with config.json and "
            f"model.safetensors, such as runs/NAME/best, got {model}."
        )
    folder, base = (model, model) if trainable_of(model) else model_and_base(key, model)
    if trainable_of(base):
        if kind == CLASSES:
            raise InputError(
                f"{key}: must be a classifier of transformers, but {model} is an exported decoder."
            )
        check_exported(key, base, tokenizer, vocabulary)
        return
    if importlib.util.find_spec("transformers") is None:
        raise InputError(f"{key}: a folder of transformers needs {INSTALL_MODELS}")
    config_of(base, key)
    refuse_hidden(key, folder, model)


def digest_of_weights(key: str, model: str) -> str:
    """Return a hash of a model's weights."""
    from shoal.trainables.pretrained.folder import weight_files
    from shoal.trainables.pretrained.peft_files import WEIGHTS

    if trainable_of(model):
        files = [(Store(model), "model.safetensors")]
    else:
        folder, base = model_and_base(key, model)
        files = [(Store(base), file.name) for file in weight_files(base)]
        files += [(Store(folder), WEIGHTS)] if folder != base else []
    found = hashlib.blake2b(digest_size=16)
    for store, name in files:
        with store.filesystem.open_input_stream(store.path(name)) as stream:
            while part := stream.read(BYTES_AT_ONCE):
                found.update(part)
    return found.hexdigest()
