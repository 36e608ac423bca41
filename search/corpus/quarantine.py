"""Documents that cannot be used: they are counted and kept with their reasons; too many are an error."""

from collections import Counter
from typing import NamedTuple

import pyarrow as pa

from shoal.cluster.storage import Store
from shoal.search.errors import InputError

QUARANTINE_FOLDER = "quarantine.parquet"  # in the corpus directory: one part for each group
MOST_KEPT_RECORDS = 100_000  # records kept of each group; the count goes on beyond it
EXCERPT = 200  # bytes
MOST_DOCUMENTS = 10**12  # limit on the documents of one record: a damaged file may claim any number
OVER_LONG = "over-long: more than data.document_megabytes"
NAMED = 3  # a message gives so many reasons
BOM = b"\xef\xbb\xbf"  # editors on Windows put it before a text
SCHEMA = pa.schema(
    [
        ("group", pa.string()),
        ("source", pa.string()),
        ("reason", pa.string()),
        ("documents", pa.int64()),
        ("excerpt", pa.binary()),
    ]
)


class Bad(NamedTuple):
    """What a source has instead of a text."""

    reason: str
    excerpt: bytes = b""
    documents: int = 1  # more if a whole file cannot be used
    lost: int = 0  # bytes, if the number of documents in them is unknown


class Record(NamedTuple):
    source: str
    bad: Bad


def checked_content(content: bytes, most: float, binary: bool = False) -> bytes | Bad:
    """Return the content without byte order marks, or why it is no text of at most `most` bytes.

    Binary content is taken as it is.
    """
    if binary:
        return content if len(content) <= most else Bad(OVER_LONG)
    while content.startswith(BOM):
        content = content[len(BOM) :]
    if not content.strip():
        return Bad("empty")
    if len(content) > most:
        return Bad(OVER_LONG, content[:EXCERPT])
    try:
        content.decode()
    except UnicodeDecodeError:
        return Bad("not UTF-8", content[:EXCERPT])
    return content


def printable_line(text: str) -> str:
    """Return a text that fits in a line of a terminal and a column of UTF-8."""
    try:  # a file's name that is not UTF-8 is escaped byte by byte
        plain = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:
        plain = text.encode(errors="backslashreplace").decode()
    return " ".join(plain.split())


class Quarantine:
    """The bad documents of one group; `place` is the file of the corpus that keeps them."""

    def __init__(self, group: str, place: str = ""):
        self.group = group
        self.place = place or f"{QUARANTINE_FOLDER}/{group}.parquet"
        self.records: list[Record] = []
        self.reasons: Counter[str] = Counter()
        self.places: dict[str, str] = {}  # reason -> the first source that gave it
        self.unsettled: list[Record] = []  # records whose number of documents is unknown; their bytes are known

    def add(self, source: str, bad: Bad) -> None:
        documents = min(bad.documents, MOST_DOCUMENTS)
        bad = bad._replace(
            reason=printable_line(bad.reason), excerpt=bad.excerpt[:EXCERPT], documents=documents
        )
        record = Record(printable_line(source), bad)
        self.places.setdefault(bad.reason, record.source)
        if bad.lost:
            self.unsettled.append(record)
        else:
            self._count(record)

    def _count(self, record: Record) -> None:
        self.reasons[record.bad.reason] += record.bad.documents
        if len(self.records) < MOST_KEPT_RECORDS:
            self.records.append(record)

    @property
    def documents(self) -> int:
        return self.reasons.total()

    def settle(self, good: int, size: int) -> None:
        """Estimate documents from lost bytes, by the mean size of the `good` documents of `size` bytes."""
        for source, bad in self.unsettled:
            documents = round(bad.lost * good / size) if size else 0
            self._count(Record(source, bad._replace(documents=max(documents, bad.documents), lost=0)))
        self.unsettled = []

    def write(self, store: Store) -> None:
        """Write what there is, or drop what an earlier build of the same settings had."""
        self.settle(0, 0)
        if not self.records:
            store.delete(self.place)
            return
        rows = [(self.group, source, bad.reason, bad.documents, bad.excerpt) for source, bad in self.records]
        columns = zip(*rows, strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        store.write_table(self.place, pa.table(arrays, schema=SCHEMA))

    def check(self, good: int, size: int, share: float, source: str) -> None:
        """Raise InputError if more than this share of a group is bad, with the most frequent reasons first.

        The group's `good` documents have `size` bytes together.
        """
        self.settle(good, size)
        bad = self.documents
        if bad <= share * (bad + good):
            return
        raise InputError(
            f"data.groups.{self.group} ({source}): {bad} of {bad + good} documents cannot be used, more than "
            f"data.bad_share ({share:g}) allows: {self.said()}. They are in {self.place} of data.corpus."
        )

    def said(self) -> str:
        """Return the most frequent reasons: how often each was given, and the first source that gave it."""
        said = [
            f"{count} x {reason} ({self.places[reason]})" for reason, count in self.reasons.most_common(NAMED)
        ]
        if (others := len(self.reasons) - NAMED) > 0:
            said.append(f"and {others} other reason{'s' * (others > 1)}")
        return "; ".join(said)
