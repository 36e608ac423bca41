"""Build a corpus once: documents, packed to rows of tokens in Parquet, on which every run of it trains.

Everything is decided by hashes of content, so the same sources give the same rows, row ids and splits.
"""

import contextlib
import errno
import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from shoal.cluster.rows import row_bytes
from shoal.cluster.storage import Store
from shoal.search.config.sections import Data
from shoal.search.corpus import freshness, stages
from shoal.search.corpus.asked import write_questions
from shoal.search.corpus.documents import Document, gather
from shoal.search.corpus.inferring import with_columns
from shoal.search.corpus.making import fields_made, nothing_fits, pack_of, pick_of
from shoal.search.corpus.manifest import (
    CORPUS_FORMAT,
    MANIFEST,
    Group,
    Manifest,
    find_corpus,
    key_of,
    load_corpus,
    open_store,
    other_rows,
    publish_corpus,
    unwritable,
)
from shoal.search.corpus.packing import PART_ROWS, SPLITS, Built, Split, split_of, write_rows
from shoal.search.corpus.quarantine import QUARANTINE_FOLDER, Quarantine
from shoal.search.corpus.staging import move, staging_folder
from shoal.search.errors import InputError
from shoal.search.tokenizers import open_tokenizer

__all__ = ["COLUMNS", "PART_ROWS", "SPLITS", "Manifest", "build_corpus", "describe", "load_corpus"]
COLUMNS = ("group", "documents", "duplicates", "skipped", *SPLITS, "tokens")
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def prepare_corpus(
    settings: Data,
    report: Callable[[str], None] = print,
    renew: bool = False,
    needed: Sequence[str] = SPLITS,
) -> Manifest:
    """Return the corpus of these settings, built first where there is none.

    If it is older than its sources, it is built again with `renew` and used without; both are reported. Every
    group has a row in each split that is `needed`.
    """
    if settings.content is not None:
        return same_rows(settings, report)
    manifest = find_corpus(settings)
    if manifest is None:
        return build_corpus(settings, report, needed)
    store = open_store(settings)
    changed = freshness.changes(store, manifest, settings)
    said = "; ".join(f"{change.group}: {change.said}" for change in changed)
    if changed and all(change.gone for change in changed):
        report(f"data.corpus: the corpus in {settings.corpus} is used, though of its sources {said}")
    elif changed and renew:
        report(f"data.corpus: built again, since the sources are not what they were: {said}")
        return build_corpus(settings, report, needed)
    elif changed:
        report(f"data.corpus: {settings.corpus} is older than its sources and used as it is: {said}")
    if Manifest.of(store.read_json(MANIFEST)) != manifest:
        with contextlib.suppress(OSError):  # the corpus may lie where we may only read
            publish_corpus(store, manifest)
    return manifest


def same_rows(settings: Data, report: Callable[[str], None]) -> Manifest:
    """Return the corpus whose rows have the content that the settings name.

    If it is gone, it is built again. Raises InputError where the sources do not give these rows any more.
    """
    if (manifest := find_corpus(settings)) is not None:
        return manifest
    plain, store = settings.model_copy(update={"content": None}), open_store(settings)
    found = find_corpus(plain)
    if found is None or not all(change.gone for change in freshness.changes(store, found, plain)):
        found = build_corpus(plain, report)
    if found.content != settings.content:
        raise other_rows(settings, found)
    return found


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


def why_skipped(manifest: Manifest, place: str) -> list[str]:
    """Return a line for each group with skipped documents: why, and where they are kept."""
    return [
        f"{name}: {group.skipped} skipped: {group.reasons}; they are in {place}/{group.quarantine}"
        for name, group in manifest.groups.items()
        if group.reasons
    ]


@stages.one_connection()
def build_corpus(
    settings: Data, report: Callable[[str], None] = print, needed: Sequence[str] = SPLITS
) -> Manifest:
    """Write the corpus, its manifest last; what other builds left in the directory stays as it is."""
    _check(settings)
    given, settings = settings, with_columns(settings)
    tokenizer = open_tokenizer(settings.tokenizer)
    store, key = open_store(settings), key_of(given)
    sources = freshness.sources_of(
        settings, report
    )  # noted before they are read, so that a change meanwhile is noticed later
    seen: set[bytes] = set()  # digests of the documents of this and earlier groups
    content = hashlib.blake2b(digest_size=16)
    groups: dict[str, Group] = {}
    build = build_group if settings.builder == "local" else stages.build_group_on_ray
    with _writing(settings, store) as stage:
        for name, source in settings.groups.items():
            quarantine = Quarantine(name, f"{QUARANTINE_FOLDER}/{name}-{key}.parquet")
            try:
                built = build(name, settings, seen, quarantine, stage)
            finally:
                quarantine.write(store)  # it is written even if the check below refuses the group
            for split, value in built.splits.items():
                if not value.rows and split in needed:
                    raise no_rows(name, split, built.documents, settings)
            content.update(built.content)
            groups[name] = _group(source, built, quarantine)
            counts = ", ".join(f"{split} {value.rows}" for split, value in built.splits.items())
            report(f"{name}: {built.documents} documents from {source}; rows: {counts}{too_long(built)}")
        manifest = Manifest(
            format=CORPUS_FORMAT,
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
            row_settings=given.row_settings,
            fields=fields_made(settings, tokenizer),
        )
        splits = [split for group in groups.values() for split in group.splits.values()]
        move(store, stage, [file for split in splits for file in split.all_files])
        freshness.record_sources(store, manifest, sources)
        publish_corpus(store, manifest)
    for line in why_skipped(manifest, settings.corpus):
        report(line)
    return manifest


def _group(source: str, built: Built, quarantine: Quarantine) -> Group:
    skipped = quarantine.documents
    reasons, place = (quarantine.said(), quarantine.place) if skipped else ("", "")
    return Group(
        source,
        built.documents,
        built.duplicates,
        skipped,
        built.splits,
        reasons,
        place,
        built.cut,
        built.dropped,
    )


def too_long(built: Built) -> str:
    """Return the end of a message: how many examples were too long for a row."""
    found = [("cut", built.cut), ("dropped", built.dropped)]
    said = " and ".join(f"{count} {what}" for what, count in found if count)
    return f"; too long for data.sequence_length: {said}" if said else ""


@contextlib.contextmanager
def _writing(settings: Data, store: Store) -> Iterator[str]:
    """Give a folder to write parts to; a system error while they are written becomes an InputError."""
    begun = False
    try:
        with staging_folder(store) as stage:
            begun = True
            yield stage
    except OSError as error:
        if not begun:  # check it before minutes of work, not after
            raise unwritable(settings, error) from error
        way_out = "Free some room there" if error.errno in NO_ROOM else "Put that right"
        said = " ".join((error.strerror or str(error)).split()).rstrip(".")
        raise InputError(
            f"data.corpus: {settings.corpus} cannot be written: {said}. {way_out} or "
            f"choose another data.corpus, and give the same command again; nothing of this build is left there."
        ) from error


def _check(settings: Data) -> None:
    if not settings.groups:
        raise InputError("data.groups must name at least one group and its source, got none.")
    if settings.validation + settings.test >= 1:
        raise InputError(
            f"data.validation + data.test must be below 1, got {settings.validation} + {settings.test}."
        )


def build_group(group: str, settings: Data, seen: set[bytes], quarantine: Quarantine, stage: str) -> Built:
    """Write a group's rows to parts in the folder `stage`."""
    store, pack = Store(settings.corpus), pack_of(settings)
    documents, duplicates = gather(group, settings, pick_of(group, settings), seen, quarantine)
    parts: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for document in documents:
        parts[split_of(document, settings)].append(document)
    splits, content = {}, hashlib.blake2b(digest_size=16)
    cut = dropped = 0
    for split, part in parts.items():
        rows = pack(part)
        content.update(f"{group}/{split}/{len(rows.ids)}\n".encode())
        content.update(rows.ids.astype("<i8").tobytes() + row_bytes(rows.rows))
        assert np.unique(rows.ids).size == rows.ids.size, "two rows share a row id"
        written = list(write_rows(store, stage, f"{group}/{split}/part", rows))
        sizes = [count for _, count, _ in written]
        files, asked = (
            [file for file, _, _ in written],
            write_questions(store, stage, group, split, part, settings),
        )
        splits[split] = Split(len(rows.ids), rows.tokens, files, sizes, asked)
        cut, dropped = cut + rows.cut, dropped + rows.dropped
    if dropped == len(documents):
        raise nothing_fits(group, settings, dropped)
    return Built(len(documents), duplicates, splits, content.digest(), cut, dropped)


def no_rows(group: str, split: str, documents: int, settings: Data) -> InputError:
    share = f"data.{split} = {getattr(settings, split)}" if split != "train" else "what is left"
    place = f"data.groups.{group} ({settings.groups[group]})"
    if settings.split_field is not None:
        return InputError(
            f"{place}: no row of {documents} is for the {split} split; {settings.split_field!r} "
            f"(data.split_field) must name train, validation and test."
        )
    if settings.rows != "tokens":
        what = "records" if settings.rows == "columns" else "examples"
        return InputError(
            f"{place}: the {split} split ({share}) of {documents} {what} has not one row. Give the group more "
            f"of them, or raise its share."
        )
    return InputError(
        f"{place}: the {split} split ({share}) of "
        f"{documents} documents has not one row of {settings.sequence_length} tokens. Give the "
        f"group more text, raise its share, or lower data.sequence_length."
    )
