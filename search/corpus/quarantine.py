"""Documents that cannot be used: counted, kept with their reasons, and too many of them refused."""

from collections import Counter
from typing import NamedTuple

import pyarrow as pa

from cluster.storage import Store
from search.errors import InputError

FOLDER = "quarantine.parquet"  # in the corpus directory: one part a group
KEPT = 100_000  # records of a group; all are counted
EXCERPT = 200  # bytes
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
    documents: int = 1  # more where a whole file cannot be used


def checked(content: bytes, most: float) -> bytes | Bad:
    """Return the content, or why it is no text of at most `most` bytes."""
    if not content.strip():
        return Bad("empty")
    if len(content) > most:
        return Bad("over-long: more than data.document_megabytes", content[:EXCERPT])
    try:
        content.decode()
    except UnicodeDecodeError:
        return Bad("not UTF-8", content[:EXCERPT])
    return content


class Quarantine:
    """The bad documents of one group."""

    def __init__(self, group: str):
        self.group = group
        self.records: list[tuple[str, str, str, int, bytes]] = []
        self.reasons: Counter[str] = Counter()
        self.places: dict[str, str] = {}  # reason -> the first source that gave it

    def add(self, source: str, bad: Bad) -> None:
        self.reasons[bad.reason] += bad.documents
        self.places.setdefault(bad.reason, source)
        if len(self.records) < KEPT:
            self.records.append((self.group, source, bad.reason, bad.documents, bad.excerpt[:EXCERPT]))

    @property
    def documents(self) -> int:
        return self.reasons.total()

    def write(self, store: Store) -> None:
        """Write what there is, or drop what an earlier build had."""
        name = f"{FOLDER}/{self.group}.parquet"
        if self.records:
            columns = zip(*self.records, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
            store.write_table(name, pa.table(arrays, schema=SCHEMA))
        else:
            store.delete(name)

    def check(self, good: int, share: float, source: str) -> None:
        """Refuse a group of which more than this share is bad; says why, most frequent reasons first."""
        bad = self.documents
        if bad <= share * (bad + good):
            return
        said = [f"{count} x {reason} ({self.places[reason]})" for reason, count in self.reasons.most_common(3)]
        raise InputError(
            f"data.groups.{self.group} ({source}): {bad} of {bad + good} documents cannot be used, more than "
            f"data.bad_share ({share:g}) allows: {'; '.join(said)}. They are in {FOLDER} of data.corpus."
        )
