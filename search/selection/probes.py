"""Rows that ask a model to look a value up, by which the heads are found that do (Hua et al., 2025)."""

import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from shoal.search.errors import InputError
from shoal.search.exported import trainable_of
from shoal.search.selection.corpora import TokenRows
from shoal.search.selection.interface import Scoring
from shoal.search.selection.language import CAUSAL
from shoal.search.selection.model_scorers import reader_of
from shoal.search.tokenizers import open_tokenizer
from shoal.trainables.retrieval_heads import Head, Probe, best_heads, retrieval_scores

ALPHABET = string.ascii_letters + string.digits
LONG_ROW = 1024  # tokens; in shorter rows keys and values are short
MOST_SHOTS, MOST_PAIRS = 3, 32


def find_heads(scoring: Scoring, rows: TokenRows) -> list[Head]:
    """Return the heads that look values up best, the mean over `probes`, which ask for words of the pool."""
    settings, ours = scoring.settings, open_tokenizer(scoring.tokenizer)
    reader = reader_of(scoring, kind=CAUSAL)
    write = ours.within
    if not trainable_of(settings.model) and reader.encode is not None:
        write = tokenizer_of_folder(f"{scoring.key}.model", settings.model).within
    rng = np.random.default_rng(0)
    values = [each for row in rows if len(each := ours.decode(row).split()) > 1]
    try:
        probes = [lookup_probe(rng, write, values, scoring.length) for _ in range(settings.probes)]
    except ValueError as error:
        raise InputError(f"{scoring.key}: {error}") from error
    return best_heads(retrieval_scores(reader.module, probes), settings.share)


def tokenizer_of_folder(key: str, model: str) -> Any:
    from shoal.search.models import local_folder
    from shoal.trainables.folder_tokenizer import FolderTokenizer

    try:
        return FolderTokenizer(local_folder(key, model))
    except ValueError as error:
        raise InputError(f"{key}: {error}") from error


def lookup_probe(rng: np.random.Generator, write: Any, texts: Sequence[Sequence[str]], length: int) -> Probe:
    """Return a JSON object of keys and values, some lookups that are answered, and one with its answer.

    It has as many pairs as fit into `length` tokens. Raises ValueError if that are fewer than two.
    """
    long = length >= LONG_ROW
    letters, most, shots = (32, 30, MOST_SHOTS) if long else (4, max(2, length // 10), 0)
    opening, middle, between, closing, line = map(write, ('{"', '": "', '", "', '"}\n', '"\n'))
    pairs: list[tuple[TokenRows, TokenRows]] = []

    def size(number: int) -> int:
        each = [len(key) + len(middle) + len(value) + len(between) for key, value in pairs[:number]]
        longest = max(each, default=0)
        return len(opening) + sum(each) + len(closing) + (shots + 1) * longest

    while len(pairs) < MOST_PAIRS and size(len(pairs)) <= length:
        key = write("".join(rng.choice(list(ALPHABET), letters)))
        pairs.append((key, probe_value(rng, write, texts, most)))
    pairs = pairs[: len(pairs) - (size(len(pairs)) > length)]
    if len(pairs) < 2:
        raise ValueError(f"rows must have room for two keys with their values, but have {length} tokens.")
    tokens, starts = list(opening), []
    for key, value in pairs:
        tokens += [*key, *middle]
        starts.append(len(tokens))
        tokens += [*value, *between]
    tokens = [*tokens[: len(tokens) - len(between)], *closing]
    asked = rng.choice(len(pairs), min(shots + 1, len(pairs)), replace=False).tolist()
    for number in asked[:-1]:
        tokens += [*pairs[number][0], *middle, *pairs[number][1], *line]
    key, value = pairs[asked[-1]]
    tokens += [*key, *middle, *value]
    start = starts[asked[-1]]
    answer = slice(len(tokens) - len(value), len(tokens))
    return Probe(np.array(tokens, np.int64), slice(start, start + len(value)), answer)


def probe_value(rng: np.random.Generator, write: Any, texts: Sequence[Sequence[str]], most: int) -> TokenRows:
    """Return the tokens of some words out of a text, at most so many."""
    words = texts[int(rng.integers(len(texts)))]
    start = int(rng.integers(max(len(words) - 1, 1)))
    found: TokenRows = write(" ".join(words[start : start + most]))[:most]
    return found
