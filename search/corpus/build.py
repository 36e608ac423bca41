"""Documents packed to rows of tokens in Parquet, once a corpus: the rows that every run of it trains on.

Everything is decided by hashes of content, so the same sources give the same rows, row ids and splits.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.storage import Store
from search.config.sections import Data
from search.corpus import stages
from search.corpus.documents import Document, gather
from search.corpus.packing import PART_ROWS, SPLITS, Rows, Split, pack, split_of, write_part
from search.corpus.quarantine import Quarantine
from search.errors import InputError
from trainables.tokenizer import tokenizer_of

FORMAT = 2
READABLE = (1, FORMAT)  # format 1 has tokens as lists: read alike, but slower
MANIFEST = "manifest.json"
# what decides a corpus's content beside its sources
SETTINGS = (
    *("tokenizer", "sequence_length", "text_field", "megabytes", "document_megabytes"),
    *("validation", "test", "builder"),
)
COLUMNS = ("group", "documents", "duplicates", "skipped", *SPLITS, "tokens")


@dataclass(frozen=True)
class Group:
    """`documents` counts what splits are made of: texts, or pieces of texts too long for that."""

    source: str
    documents: int
    duplicates: int
    skipped: int  # bad ones, in the quarantine
    splits: dict[str, Split]


@dataclass(frozen=True)
class Manifest:
    """What a corpus holds and was made from; written last, so where it is, the corpus is whole."""

    format: int
    tokenizer: str
    vocabulary: int
    sequence_length: int
    text_field: str
    megabytes: float
    validation: float
    test: float
    content: str  # hash of all row ids and tokens
    groups: dict[str, Group]
    document_megabytes: float | None = None
    builder: str = "local"

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Manifest":
        """Return the manifest that `asdict` made plain."""
        if plain["format"] not in READABLE:
            raise ValueError(f"format must be one of {READABLE}, got {plain['format']}.")
        groups = {}
        for name, group in plain["groups"].items():
            splits = {split: Split(**value) for split, value in group["splits"].items()}
            groups[name] = Group(**{**group, "splits": splits})
        return cls(**{**plain, "groups": groups})


def prepare_corpus(settings: Data, report: Callable[[str], None] = print) -> Manifest:
    """Return the corpus of these settings, built first where there is none."""
    if _store(settings).exists(MANIFEST):
        return load_corpus(settings)
    return build_corpus(settings, report)


def load_corpus(settings: Data) -> Manifest:
    """Return the manifest of a finished corpus that fits the settings and still has all its files."""
    store = _store(settings)
    way_out = f"Delete {settings.corpus} to build it again, or choose another data.corpus."
    if not store.exists(MANIFEST):
        raise InputError(
            f"data.corpus: no finished corpus in {settings.corpus}. Build it with `shoal corpus FILE`."
        )
    try:
        manifest = Manifest.of(store.read_json(MANIFEST))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"data.corpus: {store.path(MANIFEST)} is no manifest of format {READABLE[0]} or {FORMAT}. {way_out}"
        ) from error
    if differences := list(_differences(manifest, settings)):
        raise InputError(
            f"data.corpus: {settings.corpus} was built otherwise: {'; '.join(differences)}. {way_out}"
        )
    for name, group in manifest.groups.items():
        for split, value in group.splits.items():
            there = {f"{name}/{split}/{file}" for file in store.names(f"{name}/{split}")}
            if missing := sorted(set(value.files) - there):
                raise InputError(f"data.corpus: {settings.corpus} has lost {missing[0]}. {way_out}")
    return manifest


def _store(settings: Data, write: bool = False) -> Store:
    try:
        store = Store(settings.corpus)
        if write:  # known before minutes of work, not after
            store.write(".probe", b"")
            store.delete(".probe")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(
            f"data.corpus must be a directory or URI that can be written, got {settings.corpus}: {error}"
        ) from error
    return store


def _differences(manifest: Manifest, settings: Data) -> Iterator[str]:
    for name in SETTINGS:
        built, wanted = getattr(manifest, name), getattr(settings, name)
        if built != wanted:
            yield f"{name} is {built} there, {wanted} in the settings"
    for name in dict.fromkeys([*manifest.groups, *settings.groups]):
        built = manifest.groups[name].source if name in manifest.groups else "absent"
        wanted = settings.groups.get(name, "absent")
        if built != wanted:
            yield f"groups.{name} is {built} there, {wanted} in the settings"


def describe(manifest: Manifest) -> list[tuple[str | int, ...]]:
    """Return one line a group for a table under COLUMNS; the splits are counted in rows."""
    return [
        (
            name,
            group.documents,
            group.duplicates,
            group.skipped,
            *(group.splits[split].rows for split in SPLITS),
            sum(split.tokens for split in group.splits.values()),
        )
        for name, group in manifest.groups.items()
    ]


def build_corpus(settings: Data, report: Callable[[str], None] = print) -> Manifest:
    """Write the corpus, its manifest last; what an earlier build left in the directory is replaced."""
    _check(settings)
    store, tokenizer = _store(settings, write=True), tokenizer_of(settings.tokenizer)
    store.delete(MANIFEST)
    seen: set[bytes] = set()  # digests of the documents of this and earlier groups
    content = hashlib.blake2b(digest_size=16)
    groups = {}
    build = build_group if settings.builder == "local" else stages.build_group
    for name, source in settings.groups.items():
        quarantine = Quarantine(name)
        try:
            documents, duplicates, splits, digest = build(name, settings, seen, quarantine)
        finally:
            quarantine.write(store)  # also where there is too much of it
        for split, value in splits.items():
            if not value.rows:
                raise no_rows(name, split, documents, settings)
        content.update(digest)
        groups[name] = Group(source, documents, duplicates, quarantine.documents, splits)
        counts = ", ".join(f"{split} {value.rows}" for split, value in splits.items())
        report(f"{name}: {documents} documents from {source}; rows: {counts}")
    manifest = Manifest(
        format=FORMAT,
        tokenizer=tokenizer.name,
        vocabulary=tokenizer.vocabulary,
        sequence_length=settings.sequence_length,
        text_field=settings.text_field,
        megabytes=settings.megabytes,
        validation=settings.validation,
        test=settings.test,
        content=content.hexdigest(),
        groups=groups,
        document_megabytes=settings.document_megabytes,
        builder=settings.builder,
    )
    store.write_json(MANIFEST, asdict(manifest))
    return manifest


def _check(settings: Data) -> None:
    if not settings.groups:
        raise InputError("data.groups must name at least one group and its source, got none.")
    if settings.validation + settings.test >= 1:
        raise InputError(
            f"data.validation + data.test must be below 1, got {settings.validation} + {settings.test}."
        )


def build_group(
    group: str, settings: Data, seen: set[bytes], quarantine: Quarantine
) -> tuple[int, int, dict[str, Split], bytes]:
    """Write a group's rows; returns its documents, its duplicates, its splits, and a digest of all rows."""
    store, tokenizer = _store(settings), tokenizer_of(settings.tokenizer)
    documents, duplicates = gather(group, settings, seen, quarantine)
    parts: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for document in documents:
        parts[split_of(document, settings)].append(document)
    splits, content = {}, hashlib.blake2b(digest_size=16)
    for split, part in parts.items():
        rows = pack(part, tokenizer, settings.sequence_length)
        content.update(f"{group}/{split}/{len(rows.ids)}\n".encode())
        content.update(rows.ids.astype("<i8").tobytes() + rows.tokens.astype("<u2").tobytes())
        assert np.unique(rows.ids).size == rows.ids.size, "two rows share a row id"
        splits[split] = _write(store, f"{group}/{split}", rows)
    return len(documents), duplicates, splits, content.digest()


def no_rows(group: str, split: str, documents: int, settings: Data) -> InputError:
    share = f"data.{split} = {getattr(settings, split)}" if split != "train" else "what is left"
    return InputError(
        f"data.groups.{group} ({settings.groups[group]}): the {split} split ({share}) of "
        f"{documents} documents has not one row of {settings.sequence_length} tokens. Give the "
        f"group more text, raise its share, or lower data.sequence_length."
    )


def _write(store: Store, folder: str, rows: Rows) -> Split:
    for name in store.names(folder):
        if name.lstrip(".").startswith("part-"):  # of an earlier build, perhaps one that was killed
            store.delete(f"{folder}/{name}")
    files = []
    for start in range(0, len(rows.ids), PART_ROWS):
        files.append(f"{folder}/part-{start // PART_ROWS:05d}.parquet")
        write_part(
            store, files[-1], rows.ids[start : start + PART_ROWS], rows.tokens[start : start + PART_ROWS]
        )
    return Split(len(rows.ids), rows.tokens.size, files)
