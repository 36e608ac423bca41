"""Documents that cannot be used are put aside with their reasons; too many of them end the build."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shoal.cluster.storage import Store
from shoal.search.config.sections import Data
from shoal.search.corpus.build import build_corpus
from shoal.search.errors import InputError
from tests.search.corpus.test_sources import TEXTS, as_archive

BAD = {
    "empty": b'{"text": " "}',
    "not UTF-8": b'{"text": "\xff"}',
    "each line must be JSON": b'{"text": ',
    "each line must be a JSON object": b"[1]",
    "no field 'text'; set data.text_field to one of ['body']": b'{"body": "x"}',
    "'text' (data.text_field) must hold text, got int": b'{"text": 3}',
    "over-long: more than data.document_megabytes": json.dumps({"text": "x" * 2000}).encode(),
}


def settings(folder, **changes) -> Data:
    # validation and test so large that none of them stays empty
    return Data(
        corpus=str(folder / "corpus"),
        groups={"sea": str(folder / "in")},
        sequence_length=8,
        validation=0.2,
        test=0.2,
        document_megabytes=0.001,
        **changes,
    )


def write(folder) -> None:
    (folder / "in").mkdir()
    good = [json.dumps({"text": text}).encode() for text in TEXTS]
    (folder / "in" / "a.jsonl").write_bytes(b"\n".join([*good[:60], *BAD.values(), *good[60:]]))
    (folder / "in" / "b.parquet").write_bytes(b"PAR1 and then no more")
    as_archive(folder / "in" / "c.tar", ["a text of the archive"])
    (folder / "in" / "c.tar").write_bytes((folder / "in" / "c.tar").read_bytes()[:1100])
    pq.write_table(pa.table({"body": ["x", "y"]}), folder / "in" / "d.parquet")


def test_bad_documents_are_counted_and_kept_with_reason_and_source(tmp_path) -> None:
    write(tmp_path)
    manifest = build_corpus(settings(tmp_path), lambda line: None)
    rows = Store(str(tmp_path / "corpus")).read_table("quarantine.parquet").to_pylist()
    found = {row["reason"]: row for row in rows}
    assert BAD.keys() <= found.keys() and len(rows) == len(found)
    for reason, line in BAD.items():
        assert found[reason]["source"].endswith("a.jsonl") and found[reason]["documents"] == 1
        if reason.startswith(("not UTF-8", "each", "no field")):
            assert found[reason]["excerpt"] == line
    by_file = {row["source"].rpartition("/")[2]: row for row in rows}
    assert by_file["b.parquet"]["reason"].startswith("cannot be read: ")
    assert by_file["d.parquet"]["documents"] == 2  # both rows of a file that lacks the column
    assert by_file["c.tar"]["reason"].startswith("no member .txt")  # it breaks off after one of another kind
    assert manifest.groups["sea"].skipped == sum(row["documents"] for row in rows)
    assert manifest.groups["sea"].documents == len(TEXTS)


def test_more_than_the_share_ends_the_build_with_the_reasons(tmp_path) -> None:
    write(tmp_path)
    with pytest.raises(InputError) as raised:
        build_corpus(settings(tmp_path, bad_share=0.05), lambda line: None)
    said = str(raised.value)
    assert "data.groups.sea" in said and "data.bad_share (0.05)" in said
    assert "2 x no column 'text'; set data.text_field to one of ['body']" in said and "d.parquet" in said
    # they can be looked at all the same
    assert Store(str(tmp_path / "corpus")).read_table("quarantine.parquet").num_rows >= len(BAD)
