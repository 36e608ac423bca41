"""The manifest of a corpus: what it holds and was made from; find the corpus of some settings.

Parts are named by what they hold, so builds in one place never write over one another; only the manifest of
the last one is moved to `manifest.json`, and each is kept in `manifests/` by its content.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from shoal.cluster.rows import id_type, record_type, token_rows
from shoal.cluster.storage import Store, entries_in
from shoal.search.config.sections import Data
from shoal.search.corpus.packing import Split
from shoal.search.errors import InputError

CORPUS_FORMAT = 4
# 1 has tokens as lists, which is slower; 2 has no record of its sources; before 4 all rows were uint16 tokens
READABLE = (1, 2, 3, CORPUS_FORMAT)
MANIFEST = "manifest.json"
MANIFEST_NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]{8}\.json")  # files of other names are not ours
KEPT_MANIFESTS = "manifests"  # folder: one file for each corpus, named by its content
SOURCES = "sources"  # folder: the source files of each corpus
# beside the sources, these settings decide a corpus's content
DECIDING_SETTINGS = (
    *("tokenizer", "sequence_length", "text_field", "megabytes", "document_megabytes"),
    *("validation", "test", "builder"),
)


@dataclass(frozen=True)
class Group:
    """`documents` counts what splits are made of: texts, or pieces of texts too long for that."""

    source: str
    documents: int
    duplicates: int
    skipped: int  # bad documents, which are in the quarantine
    splits: dict[str, Split]
    reasons: str = ""  # why they were skipped, the most frequent ones
    quarantine: str = ""  # the file of the corpus that keeps bad documents
    cut: int = 0  # examples that were cut to a row's length
    dropped: int = 0  # examples that were too long for a row


@dataclass(frozen=True)
class Manifest:
    """What a corpus holds and was made from; written last, so where it is, the corpus is whole."""

    format: int
    tokenizer: str
    vocabulary: int
    sequence_length: int
    text_field: str | dict[str, str]
    megabytes: float
    validation: float
    test: float
    content: str  # hash of all row ids and tokens
    groups: dict[str, Group]
    document_megabytes: float | None = None
    builder: str = "local"
    row_settings: dict[str, Any] = field(default_factory=dict)  # as `Data.row_settings` has them
    fields: list[list[Any]] = field(
        default_factory=list
    )  # the fields of records; rows of plain tokens have none

    @property
    def row_type(self) -> np.dtype[Any]:
        """The type of a row, as `shoal.cluster.rows` has it."""
        if self.fields:
            return record_type(self.fields)
        return token_rows(self.sequence_length, id_type(self.vocabulary))

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Manifest":
        """Return the manifest of a dict that `asdict` made."""
        if plain["format"] not in READABLE:
            raise ValueError(f"format must be one of {READABLE}, got {plain['format']}.")
        groups = {}
        for name, group in plain["groups"].items():
            splits = {split: Split(**value) for split, value in group["splits"].items()}
            groups[name] = Group(**{**group, "splits": splits})
        return cls(**{**plain, "groups": groups})


def open_store(settings: Data) -> Store:
    try:
        return Store(settings.corpus)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise unwritable(settings, error) from error


def unwritable(settings: Data, error: Exception, key: str = "data.corpus") -> InputError:
    said = " ".join(str(error).split())
    return InputError(f"{key} must be a directory or URI that can be written, got {settings.corpus}: {said}")


def key_of(made: "Data | Manifest") -> str:
    """Return a hash of the settings and sources, for names of files."""
    groups = {name: group.source if isinstance(group, Group) else group for name, group in made.groups.items()}
    plain = {**{name: getattr(made, name) for name in DECIDING_SETTINGS}, "groups": groups} | made.row_settings
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=4).hexdigest()


def load_corpus(settings: Data, content: str | None = None) -> Manifest:
    """Return the manifest of a finished corpus that fits the settings and still has all its files.

    With `content`, here or in the settings, it is the corpus of exactly these rows; its sources may have moved.
    """
    content = content or settings.content
    if (found := find_corpus(settings, content)) is not None:
        return found
    store = open_store(settings)
    if not store.exists(MANIFEST):
        raise InputError(
            f"data.corpus: no finished corpus in {settings.corpus}. Build it with `shoal corpus FILE`."
        )
    there = _read(store, MANIFEST)
    if content is not None and content == settings.content:
        raise other_rows(settings, there)
    said = "; ".join(differences(there, settings)) if content is None else f"its content is {there.content}"
    raise InputError(
        f"data.corpus: {settings.corpus} was built otherwise: {said}. Build another beside it with "
        f"`shoal corpus FILE`, or choose another data.corpus."
    )


def other_rows(settings: Data, found: Manifest) -> InputError:
    return InputError(
        f"data.corpus: {settings.corpus} has other rows than the run began with: their content is "
        f"{found.content}, and was {settings.content}. Put the corpus or its sources back as they were, or "
        f"begin another run with directory=..."
    )


def find_corpus(settings: Data, content: str | None = None) -> Manifest | None:
    """Return the newest corpus in this place with these settings, or with this content, or None.

    Raises InputError if it is broken.
    """
    content = content or settings.content
    store = open_store(settings)
    way_out = f"Delete {settings.corpus} to build it again, or choose another data.corpus."
    names = [MANIFEST, *_kept(store)] if store.exists(MANIFEST) else []
    for name in names:
        try:
            found = _read(store, name)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"data.corpus: {store.path(name)} is no manifest of format 1 to {CORPUS_FORMAT}. {way_out}"
            ) from error
        fits = not any(differences(found, settings)) if content is None else found.content == content
        if not fits:
            continue
        if missing := next(lost(store, found), None):
            raise InputError(f"data.corpus: {settings.corpus} has lost {missing}. {way_out}")
        return found
    return None


def _read(store: Store, name: str) -> Manifest:
    return Manifest.of(store.read_json(name))


def _kept(store: Store) -> list[str]:
    """Return the manifests that are kept, newest first."""
    there = entries_in(store.filesystem, store.path(KEPT_MANIFESTS))
    found = [info for info in there if MANIFEST_NAME.fullmatch(info.base_name)]
    found.sort(key=lambda info: (info.mtime_ns or 0, info.base_name), reverse=True)
    return [f"{KEPT_MANIFESTS}/{info.base_name}" for info in found]


def lost(store: Store, manifest: Manifest) -> Iterator[str]:
    """Yield the files of a corpus that are no longer there."""
    for name, group in manifest.groups.items():
        for split, value in group.splits.items():
            there = {f"{name}/{split}/{file}" for file in store.names(f"{name}/{split}")}
            yield from sorted(set(value.all_files) - there)


def publish_corpus(store: Store, manifest: Manifest) -> None:
    """Write the manifest of a corpus whose parts are in place; earlier corpora are kept beside it."""
    if store.exists(MANIFEST):
        keep_manifest(store)
    plain = asdict(manifest)
    store.write_json(f"{KEPT_MANIFESTS}/{name_of(manifest)}", plain)
    store.write_json(MANIFEST, plain)


def name_of(manifest: Manifest) -> str:
    return f"{manifest.content}-{key_of(manifest)}.json"


def keep_manifest(store: Store) -> None:
    """Keep the present manifest under its content, if a version of Shoal wrote it that did not."""
    try:
        there = _read(store, MANIFEST)
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
    ):  # an unreadable manifest belongs to no finished corpus
        return
    if not store.exists(f"{KEPT_MANIFESTS}/{name_of(there)}"):
        store.write(f"{KEPT_MANIFESTS}/{name_of(there)}", store.read(MANIFEST))


def differences(manifest: Manifest, settings: Data) -> Iterator[str]:
    for name in DECIDING_SETTINGS:
        built, wanted = getattr(manifest, name), getattr(settings, name)
        if built != wanted:
            yield f"{name} is {built} there, {wanted} in the settings"
    for name in dict.fromkeys([*manifest.row_settings, *settings.row_settings]):
        built, wanted = manifest.row_settings.get(name), settings.row_settings.get(name)
        if built != wanted:
            yield f"{name} is {built} there, {wanted} in the settings"
    for name in dict.fromkeys([*manifest.groups, *settings.groups]):
        built = manifest.groups[name].source if name in manifest.groups else "absent"
        wanted = settings.groups.get(name, "absent")
        if built != wanted:
            yield f"groups.{name} is {built} there, {wanted} in the settings"
