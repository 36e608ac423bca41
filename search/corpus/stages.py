"""Build a corpus that is too large for one process: Ray Data's stages read, compare, tokenise, pack and write.

Two passes over the same batches of files. The first returns a digest and a length of every text, and from
these alone it is decided here which texts are kept: the first of equal ones, and no more than a group may
have. The second packs what is kept and writes it. Batches are cut by the files' sizes and their turns, so
the rows are the same on any number of machines.
"""

import contextlib
import hashlib
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray

from shoal.cluster.session import session
from shoal.cluster.storage import Store
from shoal.search.config.sections import Data
from shoal.search.corpus.asked import write_questions
from shoal.search.corpus.documents import (
    PIECE_BYTES,
    SAMPLED_FROM,
    Document,
    content_digest,
    cut_into_pieces,
    draw_key,
    how_many_fit,
    no_text,
)
from shoal.search.corpus.making import nothing_fits, pack_of, pick_of
from shoal.search.corpus.opening import bytes_of
from shoal.search.corpus.packing import SPLITS, Built, Split, split_of, write_rows
from shoal.search.corpus.picking import Content
from shoal.search.corpus.quarantine import Bad, Quarantine, checked_content
from shoal.search.corpus.sources import Entry, entries, read_texts
from shoal.search.errors import InputError

BATCH_BYTES = 64 << 20  # bytes of files that one task reads; it drops its last, incomplete row


class Batch(NamedTuple):
    group: str
    number: int
    entries: list[Entry]


class Read(NamedTuple):
    """What the first pass returns for a batch: each text's digest and length, and the bad documents."""

    digests: NDArray[np.void]  # (texts,), 16 bytes each
    lengths: NDArray[np.int64]  # (texts,)
    bad: list[tuple[str, Bad]]


# It closes the connection that all stages share, where they do.
OPEN_CONNECTION: ContextVar[contextlib.ExitStack | None] = ContextVar("OPEN_CONNECTION", default=None)


class TaskRefusal(NamedTuple):
    """A task's error, returned in place of its result: raised there, it would arrive inside Ray's trace."""

    error: Exception


class WrittenFile(NamedTuple):
    split: str
    file: str
    rows: int
    content: bytes  # digest of ids and rows


class Written(NamedTuple):
    """What the second pass returns for a batch."""

    files: list[WrittenFile]
    tokens: dict[str, int]  # split -> tokens without padding
    cut: int  # examples that were cut to a row's length
    dropped: int  # examples that were too long
    questions: dict[str, list[str]]  # split -> files of questions


def batches(group: str, settings: Data, size: int = BATCH_BYTES) -> list[Batch]:
    """Return a group's files in the order of their turns, in batches of about `size` bytes."""
    found: list[list[Entry]] = [[]]
    room = size
    for entry in entries(group, settings, pick_of(group, settings)):
        if room <= 0:
            found.append([])
            room = size
        found[-1].append(entry)
        room -= max(entry.size, 1)
    return [Batch(group, number, files) for number, files in enumerate(found) if files]


def texts(batch: Batch, settings: Data) -> Iterator[tuple[str, Content]]:
    """Yield a batch's texts, long ones in pieces, the same way in both passes."""
    longest, pick = (settings.document_megabytes or np.inf) * 1e6, pick_of(batch.group, settings)
    for source, content in read_texts(batch.group, settings, batch.entries):
        text = content if isinstance(content, Bad) else checked_content(content, longest, pick.binary)
        if isinstance(text, Bad) or pick.whole:
            yield source, text
        else:
            for piece in cut_into_pieces(text, PIECE_BYTES[1]):
                yield source, piece


def same_as(digests: Iterable[bytes]) -> bytes:
    """Return a digest of all texts of a batch: equal digests mean equal texts."""
    return content_digest(b"".join(digests))


def look(batch: Batch, settings: Data) -> Read:
    """First pass over a batch: digest and measure each text."""
    digests, lengths, bad = [], [], []
    for source, text in texts(batch, settings):
        if isinstance(text, Bad):
            bad.append((source, text))
        else:
            digests.append(content_digest(text))
            lengths.append(len(text))
    return Read(np.array(digests, "V16"), np.array(lengths, np.int64), bad)


def choose_texts(found: list[Read], seen: set[bytes], most: int) -> tuple[list[NDArray[np.bool_]], int]:
    """Return which texts of each batch are kept, and how many were duplicates.

    They are the first of equal ones, and of these, as `Sample` has them, the first by `draw_key`.
    """
    kept = [np.zeros(len(each.lengths), bool) for each in found]
    fresh: list[tuple[bytes, int, int, int]] = []  # digest, length, batch, place in the batch
    known, duplicates, shown = set[bytes](), 0, 0
    for batch, each in enumerate(found):
        for place, (name, length) in enumerate(zip(each.digests.tolist(), each.lengths.tolist(), strict=True)):
            if shown >= SAMPLED_FROM * most:
                break
            if name in seen or name in known:
                duplicates += 1
                continue
            known.add(name)
            fresh.append((name, length, batch, place))
            shown += length
    fresh.sort(key=lambda each: draw_key(each[0]))
    for name, _, batch, place in fresh[: how_many_fit([length for _, length, *_ in fresh], most)]:
        kept[batch][place] = True
        seen.add(name)
    return kept, duplicates


def write_batch(item: tuple[Batch, NDArray[np.bool_], bytes], settings: Data, stage: str) -> Written:
    """Second pass over a batch: pack its kept texts, split by split, and write them."""
    batch, kept, seen = item
    store, pack = Store(settings.corpus), pack_of(settings)
    good = [text for _, text in texts(batch, settings) if isinstance(text, bytes)]
    digests = [content_digest(text) for text in good]
    if same_as(digests) != seen:
        raise InputError(
            f"data.groups.{batch.group} ({settings.groups[batch.group]}): files have changed while they were "
            f"read, {batch.entries[0].path} or one after it. Give the command again once nobody writes there."
        )
    parts: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for chosen, name_, text in zip(kept.tolist(), digests, good, strict=True):
        if chosen:
            document = Document(name_, text)
            parts[split_of(document, settings)].append(document)
    found = Written([], {}, 0, 0, {})
    for split, documents in parts.items():
        rows = pack(documents)
        name = f"{batch.group}/{split}/part-{batch.number:05d}"
        for file, count, content in write_rows(store, stage, name, rows):
            found.files.append(WrittenFile(split, file, count, content))
        found.tokens[split] = rows.tokens
        found.questions[split] = write_questions(store, stage, batch.group, split, documents, settings) or []
        found = found._replace(cut=found.cut + rows.cut, dropped=found.dropped + rows.dropped)
    return found


@contextlib.contextmanager
def one_connection() -> Iterator[None]:
    """Let all stages inside share a connection to Ray, which the first of them opens.

    Otherwise each opens its own, and an embedded Ray starts anew for each.
    """
    if OPEN_CONNECTION.get() is not None:
        yield
        return
    with contextlib.ExitStack() as shared:
        before = OPEN_CONNECTION.set(shared)
        try:
            yield
        finally:
            OPEN_CONNECTION.reset(before)


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Connect to Ray, if this process is not: until the end of `one_connection`, or of this stage."""
    if ray.is_initialized():
        yield
        return
    shared = OPEN_CONNECTION.get()
    try:
        if shared is not None:
            shared.enter_context(session())
            yield
        else:
            with session():
                yield
    except ConnectionError as error:
        raise InputError(f"RAY_ADDRESS: no Ray cluster answers there: {error}") from error


def on_ray(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    """Apply a function to each item as a stage of Ray Data; results in the order of the items."""
    with connected():
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        planned = ray.put(items)

        def one(row: dict[str, Any]) -> dict[str, Any]:
            try:
                return {"found": pickle.dumps(function(ray.get(planned)[row["item"]]))}
            except (InputError, OSError) as error:  # the sources or the corpus raise these, not Ray
                return {"found": pickle.dumps(TaskRefusal(error))}

        blocks = len(items)
        names = ray.data.from_items([{"item": place} for place in range(blocks)], override_num_blocks=blocks)
        # half a CPU: on a small machine no whole one may be free
        found = names.map(one, num_cpus=0.5).take_all()
        return [accepted(pickle.loads(row["found"])) for row in found]


def accepted(found: Any) -> Any:
    if isinstance(found, TaskRefusal):
        raise found.error
    return found


# applies a function to each item, and returns the results in order
Apply = Callable[[Callable[[Any], Any], list[Any]], Iterable[Any]]


def build_group_on_ray(
    group: str,
    settings: Data,
    seen: set[bytes],
    quarantine: Quarantine,
    stage: str,
    apply: Apply = on_ray,
) -> Built:
    """Write a group's rows to parts in the folder `stage`."""
    planned = batches(group, settings)
    found = list(apply(partial(look, settings=settings), planned))
    for each in found:
        for source, bad in each.bad:
            quarantine.add(source, bad)
    good, size = sum(len(each.lengths) for each in found), sum(int(each.lengths.sum()) for each in found)
    quarantine.check(good, size, settings.bad_share, settings.groups[group])
    kept, duplicates = choose_texts(found, seen, bytes_of(settings.megabytes))
    if not any(chosen.any() for chosen in kept):
        raise no_text(group, settings, duplicates, quarantine)
    some = [
        (batch, chosen, same_as(each.digests.tolist()))
        for batch, chosen, each in zip(planned, kept, found, strict=True)
        if chosen.any()
    ]
    second = partial(write_batch, settings=settings, stage=stage)
    done = list(apply(second, some))
    written = [file for each in done for file in each.files]
    dropped, cut = sum(each.dropped for each in done), sum(each.cut for each in done)
    if not written and dropped:
        raise nothing_fits(group, settings, dropped)
    splits = {}
    for split in SPLITS:
        files = [each for each in written if each.split == split]
        sizes = [each.rows for each in files]
        tokens = sum(each.tokens.get(split, 0) for each in done)
        asked = [file for each in done for file in each.questions.get(split, ())]
        splits[split] = Split(sum(sizes), tokens, [each.file for each in files], sizes, asked or None)
    content = hashlib.blake2b(b"".join(each.content for each in written), digest_size=16).digest()
    return Built(sum(int(chosen.sum()) for chosen in kept), duplicates, splits, content, cut, dropped)
