"""Documents packed to rows of tokens in Parquet, once a corpus: the rows that every run of it trains on.

Everything is decided by hashes of content, so the same sources give the same rows, row ids and splits.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cluster.storage import Store
from search.corpus.documents import Document, gather
from search.errors import InputError
from search.sections import Data
from trainables.tokenizer import Tokenizer, tokenizer_of

FORMAT = 1
MANIFEST = "manifest.json"
SPLITS = ("train", "validation", "test")
PART_ROWS = 4096  # rows of a file, which is one row group: small, so that a stream starts early
COLUMNS = ("group", "documents", "duplicates", "skipped", *SPLITS, "tokens")


@dataclass(frozen=True)
class Split:
    rows: int
    tokens: int
    files: list[str]  # below the corpus directory


@dataclass(frozen=True)
class Group:
    """`documents` counts what splits are made of: texts, or pieces of texts too long for that."""

    source: str
    documents: int
    duplicates: int
    skipped: int  # empty, or not UTF-8
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

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Manifest":
        """Return the manifest that `asdict` made plain."""
        if plain["format"] != FORMAT:
            raise ValueError(f"format must be {FORMAT}, got {plain['format']}.")
        groups = {}
        for name, group in plain["groups"].items():
            splits = {split: Split(**value) for split, value in group["splits"].items()}
            groups[name] = Group(**{**group, "splits": splits})
        return cls(**{**plain, "groups": groups})


class Rows(NamedTuple):
    ids: NDArray[np.int64]  # (rows,) rising
    tokens: NDArray[np.uint16]  # (rows, sequence_length)


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
            f"data.corpus: {store.path(MANIFEST)} is no manifest of format {FORMAT}. {way_out}"
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
    for name in ("tokenizer", "sequence_length", "text_field", "megabytes", "validation", "test"):
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
    identifiers: list[NDArray[np.int64]] = []
    content = hashlib.blake2b(digest_size=16)
    groups = {}
    for name, source in settings.groups.items():
        documents, duplicates, skipped = gather(name, settings, seen)
        splits = {}
        for split, rows in _split_rows(name, documents, settings, tokenizer).items():
            content.update(f"{name}/{split}/{len(rows.ids)}\n".encode())
            content.update(rows.ids.astype("<i8").tobytes() + rows.tokens.astype("<u2").tobytes())
            identifiers.append(rows.ids)
            splits[split] = _write(store, f"{name}/{split}", rows)
        groups[name] = Group(source, len(documents), duplicates, skipped, splits)
        counts = ", ".join(f"{split} {value.rows}" for split, value in splits.items())
        report(f"{name}: {len(documents)} documents from {source}; rows: {counts}")
    everywhere = np.concatenate(identifiers)
    assert np.unique(everywhere).size == everywhere.size, "two rows share a row id"
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


def _split_rows(group: str, documents: list[Document], settings: Data, tokenizer: Tokenizer) -> dict[str, Rows]:
    """Return the rows of each split; a document's own hash decides its split, whatever else there is."""
    parts: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for document in documents:
        place = int.from_bytes(document.digest[:8], "big") / 2**64
        held = "validation" if place < settings.validation else "test"
        parts[held if place < settings.validation + settings.test else "train"].append(document)
    splits = {split: pack(part, tokenizer, settings.sequence_length) for split, part in parts.items()}
    for split, rows in splits.items():
        if not rows.ids.size:
            share = f"data.{split} = {getattr(settings, split)}" if split != "train" else "what is left"
            raise InputError(
                f"data.groups.{group} ({settings.groups[group]}): the {split} split ({share}) of "
                f"{len(documents)} documents has not one row of {settings.sequence_length} tokens. Give the "
                f"group more text, raise its share, or lower data.sequence_length."
            )
    return splits


def pack(documents: Sequence[Document], tokenizer: Tokenizer, length: int) -> Rows:
    """Return all whole rows of the documents one after another, in the order of their ids.

    An id hashes the document in which a row begins and where: it is the same in any corpus that packs the
    same documents, and its order is a shuffle, so that neighbours come from different documents.
    """
    end = np.array([tokenizer.end], np.uint16)
    encoded = [np.append(tokenizer.encode(document.content.decode()), end) for document in documents]
    tokens = np.concatenate([end[:0], *encoded])
    begins = np.cumsum([0, *(part.size for part in encoded)])
    firsts = np.arange(tokens.size // length) * length
    owners = np.searchsorted(begins, firsts, side="right") - 1
    offsets = firsts - begins[owners]
    pairs = zip(owners.tolist(), offsets.tolist(), strict=True)
    ids = np.array([_row_id(documents[owner].digest, offset) for owner, offset in pairs], np.int64)
    order = np.argsort(ids)
    return Rows(ids[order], tokens[: firsts.size * length].reshape(-1, length)[order])


def _row_id(digest: bytes, offset: int) -> int:
    hashed = hashlib.blake2b(digest + offset.to_bytes(8, "little"), digest_size=8).digest()
    return int.from_bytes(hashed, "little") >> 1  # 63 bits: never negative as int64


def _write(store: Store, folder: str, rows: Rows) -> Split:
    for name in store.names(folder):
        if name.lstrip(".").startswith("part-"):  # of an earlier build, perhaps one that was killed
            store.delete(f"{folder}/{name}")
    files = []
    for start in range(0, len(rows.ids), PART_ROWS):
        tokens = rows.tokens[start : start + PART_ROWS]
        column = pa.FixedSizeListArray.from_arrays(pa.array(tokens.ravel()), tokens.shape[1])
        table = pa.table({"row_id": rows.ids[start : start + PART_ROWS], "tokens": column})
        files.append(f"{folder}/part-{start // PART_ROWS:05d}.parquet")
        store.write_table(files[-1], table, compression="lz4", row_group_size=PART_ROWS)
    return Split(len(rows.ids), rows.tokens.size, files)
