"""A table of bad and odd sources: how many documents each gives and how many are bad, or what refuses it.

Every line is a folder made by code. It is read by both builders, which must agree, in this process.
"""
# ruff: noqa: E501

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from shoal.search.config.sections import Data
from shoal.search.corpus import stages
from shoal.search.corpus.build import build_corpus
from shoal.search.corpus.formats import SourceFile, contents
from shoal.search.corpus.picking import text_pick
from shoal.search.corpus.quarantine import Bad, checked_content
from shoal.search.errors import InputError
from tests.helpers.odd_files import (
    BIG,
    BOM,
    DEEP,
    Make,
    all_of,
    array,
    arrow,
    bytes_name,
    column,
    holds,
    ipc,
    lines,
    link,
    objects,
    one_bad,
    parquet,
    samples,
    strings,
    tar,
    texts,
    turned,
    unmarked,
    zipped,
)

TAR = tar(samples(100, 100))
SECOND = 1024 * 50  # the place of a header in it
STREAM, FILE = ipc(column(100, 200)), ipc(column(100, 200), file=True)
ROWS = parquet(column(100, 200), row_group_size=50, compression="none", write_page_checksum=True)
MIDDLE = len(ROWS) // 2
PACKED = gzip.compress(lines(100, 20))
GOOD = holds("good.jsonl", lines(0, 60))  # beside nearly all of them


def lost(size: int) -> int:
    """Return as how many documents so many bytes count: at the mean size of the 60 good ones."""
    return round(size * 60 / sum(map(len, texts(0, 60))))


class Case(NamedTuple):
    """`documents` beside the 60 good ones, of which `bad` cannot be used and `twice` are duplicates."""

    name: str
    make: Make
    documents: int = 0
    bad: int = 0
    twice: int = 0
    reason: str = ""
    source: str = "in"
    changes: dict[str, Any] = {}  # noqa: RUF012  # nobody changes it


# fmt: off
CASES = [
    # JSON lines
    Case("a number of 5000 digits", holds("a.jsonl", lines(100, 30) + BIG + lines(130, 30)), 61),
    Case("it is negative and nested", holds("a.jsonl", BIG.replace(b"777", b"-777", 1) + lines(100, 9)), 10),
    Case("100,000 brackets", holds("a.jsonl", lines(100, 30) + DEEP + lines(130, 30)), 60, 1, reason="nested"),
    Case("a line that is cut", holds("a.jsonl", lines(100, 9) + b'{"text": "abc'), 9, 1, reason="must be JSON"),
    Case("lines that are no objects", holds("a.jsonl", lines(100, 9) + b'[1]\n"x"\n3\nnull\n'), 9, 4),
    Case("a field that is no text", holds("a.jsonl", lines(100, 9) + b'{"text": 3}\n{"text": ["a"]}\n'), 9, 2),
    Case("a field that is missing", holds("a.jsonl", lines(100, 9) + b'{"body": "x"}\n'), 9, 1, reason="no field"),
    Case("a field that is null or blank", holds("a.jsonl", lines(100, 9) + b'{"text":null}\n{"text":" "}\n'), 9, 2),
    Case("a lone surrogate", holds("a.jsonl", lines(100, 9) + b'{"text": "\\ud800"}\n'), 9, 1, reason="not UTF-8"),
    Case("bytes that are not UTF-8", holds("a.jsonl", lines(100, 9) + b'{"text": "caf\xe9"}\n'), 9, 1),
    Case("infinite and not a number", holds("a.jsonl", b'{"text": "one text of it", "n": [NaN, Infinity]}\n'), 1),
    Case("a number beyond doubles", holds("a.jsonl", b'{"text": "one text of it", "n": 1e999999}\n'), 1),
    Case("a key twice", holds("a.jsonl", b'{"text": "first", "text": "the second text"}\n'), 1),
    Case("an escaped NUL", holds("a.jsonl", b'{"text": "a NUL \\u0000 within"}\n'), 1),
    Case("ends of lines of Windows", holds("a.jsonl", lines(100, 9).replace(b"\n", b"\r\n")), 9),
    Case("no end of the last line", holds("a.jsonl", lines(100, 9).rstrip()), 9),
    Case("blank lines between", holds("a.jsonl", lines(100, 9).replace(b"\n", b"\n\n \n")), 9),
    Case("U+2028 in a text", holds("a.jsonl", '{"text": "one\u2028text\u0085of it"}\n'.encode()), 1),
    Case("only NUL bytes", holds("a.jsonl", lines(100, 9) + b"\0" * 100 + b"\n"), 9, 1),
    Case("a mark of byte order", holds("a.jsonl", BOM + lines(100, 9)), 9),
    Case("marks where files were joined", holds("a.jsonl", BOM + lines(100, 9) + BOM + lines(110, 9)), 18),
    Case("two marks and a blank", holds("a.jsonl", BOM + b" " + BOM + lines(100, 9)), 9),
    Case("a mark within the field", holds("a.jsonl", '{"text": "\ufeffone text of it"}\n'.encode()), 1),
    Case("5000 keys", holds("a.jsonl", json.dumps({f"k{n}": n for n in range(5000)}).encode()), 0, 1, reason="and 4992 more"),
    Case("an empty file", holds("a.jsonl", b"")),
    Case("a file of blanks", holds("a.jsonl", b"\n \n\n")),
    Case("a file of a mark alone", holds("a.jsonl", BOM)),
    Case("UTF-16", holds("a.jsonl", lines(100, 20).decode().encode("utf-16")), 0, lost(len(lines(100, 20).decode().encode("utf-16"))), reason="write it as UTF-8"),
    # JSON under any name and in any form
    *(
        Case(f"JSON lines as {name}", holds(name, lines(100, 20)), 20)
        for name in ("a.json", "a.ndjson", "a.jsonlines", "a.jl", "part-00000", "a.JSONL", "a.jsonl.1", "a.txt")
    ),
    Case("a copy beside the real thing", all_of(holds("a.jsonl", lines(100, 9)), holds("a.jsonl.bak", lines(100, 9))), 9, 0, 9),
    Case("an editor's copy", all_of(holds("a.jsonl", lines(100, 9)), holds("a.jsonl~", lines(100, 9))), 9, 0, 9),
    Case("JSON lines of another field without a name", holds("part-0", lines(100, 9, "body")), 0, 9, reason="'body'"),
    Case("an array", holds("train.json", array(100, 20)), 20),
    Case("an array over many lines", holds("train.json", array(100, 20, 2)), 20),
    Case("an array with a mark", holds("train.json", BOM + array(100, 20)), 20),
    Case("an array as .jsonl", holds("a.jsonl", array(100, 20, 1)), 20),
    Case("an array without a name", holds("part-0", array(100, 20)), 20),
    Case("objects over many lines", holds("a.json", b"\n".join(json.dumps(each, indent=1).encode() for each in objects(100, 20))), 20),
    Case("one object", holds("a.json", json.dumps(objects(100, 1)[0], indent=1).encode()), 1),
    Case("an object without the field", holds("a.json", b'{"data": [{"text": "x"}]}'), 0, 1, reason="no field"),
    Case("an empty array", holds("a.json", b"[]")),
    Case("an array of texts", holds("a.json", b'["a", "b"]'), 0, 1, reason="JSON object"),
    Case("a wrong element", holds("a.json", array(100, 9)[:-1] + b', 3, {"text": 4}, {"text": "the last"}]'), 10, 2),
    Case("an element that is no JSON", holds("a.json", array(100, 9)[:-1] + b', {"text": x}, {"text": "the last"}]'), 10, 1),
    Case("a deep element", holds("a.json", array(100, 9)[:-1] + b"," + DEEP.strip() + b"]"), 9, 1),
    Case("an element with 5000 digits", holds("a.json", array(100, 9)[:-1] + b"," + BIG.strip() + b"]"), 10),
    Case("an element that is not UTF-8", holds("a.json", array(100, 9)[:-1] + b', {"text": "caf\xe9"}]'), 9, 1),
    Case("an array that is cut", holds("a.json", array(100, 40)[: len(array(100, 20)) + 50]), 20, 2),
    Case("an array that is not closed", holds("a.json", array(100, 20)[:-1]), 20, 1, reason="must end in ]"),
    Case("an array before something else", holds("a.json", array(100, 20) + b"\nand more"), 20, 1),
    # plain text
    Case("source code with braces", holds("a.js", b'{\n  "use strict";\n  let text = {};\n}\n' * 3), 1),
    Case("a notebook", holds("a.ipynb", json.dumps({"cells": [{"source": ["print()"]}]}, indent=1).encode()), 1),
    Case("empty and blank files", all_of(*(holds(f"{n}/__init__.py", b"\n" * (n % 2)) for n in range(20)))),
    Case("a text with a mark and without", all_of(holds("a.txt", b"one text\n" * 9), holds("b.txt", BOM + b"one text\n" * 9)), 1, 0, 1),
    Case("a table of separated values", holds("a.csv", b"id,text\n" + b"1,one text\n" * 300), 0, lost(3308), reason="write it as JSON lines"),
    Case("it is of tabulators and compressed", holds("a.tsv.gz", gzip.compress(b"id\ttext\n1\tone text\n")), 0, 1, reason="'text'"),
    Case("separated values of another kind", holds("a.csv", b"x,y\n1,2\n"), 1),
    Case("Latin-1", holds("a.txt", "caf\xe9 ".encode("latin-1") * 9), 0, 1, reason="not UTF-8"),
    Case("a picture", holds("a.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9), 0, 1, reason="not UTF-8"),
    Case("a PDF", holds("a.pdf", b"%PDF-1.7\n" + bytes(range(256))), 0, 1, reason="a PDF document"),
    Case("a text that is over-long", holds("a.txt", b"x" * 2000), 0, 1, 0, "over-long", changes={"document_megabytes": 0.001}),
    # compression
    Case("gzip", holds("a.jsonl.gz", gzip.compress(lines(100, 60))), 60),
    Case("bzip2", holds("a.jsonl.bz2", bz2.compress(lines(100, 60))), 60),
    Case("xz", holds("a.jsonl.xz", lzma.compress(lines(100, 60))), 60),
    Case("lzma", holds("a.jsonl.lzma", lzma.compress(lines(100, 60), lzma.FORMAT_ALONE)), 60),
    Case("Zstandard", holds("a.jsonl.zst", arrow(lines(100, 60), "zstd")), 60),
    Case("Zstandard of many frames", holds("a.jsonl.zst", b"\x50\x2a\x4d\x18\4\0\0\0abcd" + arrow(lines(100, 30), "zstd") + arrow(lines(130, 30), "zstd")), 60),
    Case("lz4", holds("a.jsonl.lz4", arrow(lines(100, 60), "lz4")), 60),
    Case("an ending in capitals", holds("A.JSONL.GZ", gzip.compress(lines(100, 60))), 60),
    Case("no ending of compression", holds("a.jsonl", gzip.compress(lines(100, 60))), 60),
    Case("no ending at all", holds("part-0", gzip.compress(lines(100, 60))), 60),
    Case("an ending and no compression", holds("a.jsonl.gz", lines(100, 60)), 60),
    Case("compressed twice", holds("a.jsonl.gz.gz", gzip.compress(gzip.compress(lines(100, 60)))), 60),
    Case("several members of gzip", holds("a.jsonl.gz", gzip.compress(lines(100, 30)) + gzip.compress(lines(130, 30))), 60),
    Case("zeros behind gzip", holds("a.jsonl.gz", gzip.compress(lines(100, 60)) + b"\0" * 512), 60),
    Case("a compressed text", holds("a.txt.gz", gzip.compress(b"one text of many words\n" * 9)), 1),
    Case("a compressed array", holds("a.json.zst", arrow(array(100, 60), "zstd")), 60),
    Case("nothing compressed", holds("a.jsonl.gz", gzip.compress(b""))),
    Case("gzip with a wrong checksum", holds("a.jsonl.gz", turned(PACKED, len(PACKED) - 8)), 20, 1, reason="CRC"),
    Case("gzip that is cut at its end", holds("a.jsonl.gz", PACKED[:-4]), 20, 1, reason="ended before"),
    Case("Zstandard that is cut", holds("a.jsonl.zst", arrow(lines(100, 20), "zstd")[:-3]), 0, lost(len(arrow(lines(100, 20), "zstd")) - 3), reason="Truncated"),
    Case("bzip2 that is no bzip2", holds("a.jsonl.bz2", b"BZh91AY&SY" + b"x" * 3000), 0, lost(3010), reason="cannot be read"),
    Case("zip", holds("a.jsonl.zip", zipped("a.jsonl", lines(100, 60))), 0, lost(len(lines(100, 60))), reason="a zip archive: decompress it"),
    Case("a document of an office", holds("a.docx", zipped("[Content_Types].xml", b"x" * 9000)), 0, 1),
    Case("7-Zip", holds("a.7z", b"7z\xbc\xaf\x27\x1c" + b"x" * 1420), 0, lost(1426), reason="7-Zip archive: decompress it"),
    Case("RAR", holds("a.rar", b"Rar!\x1a\x07" + b"x" * 1420), 0, lost(1426), reason="RAR archive: decompress it"),
    Case("a pointer of Git LFS", holds("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 14260\n"), 0, lost(14260), reason="git lfs pull"),
    # tar
    Case("tar", holds("a.tar", TAR), 100),
    *(
        Case(f"tar in {name}", holds(f"a.tar.{name}", content), 100)
        for name, content in (
            ("gz", gzip.compress(TAR)),
            ("bz2", bz2.compress(TAR)),
            ("xz", lzma.compress(TAR)),
            ("zst", arrow(TAR, "zstd")),
        )
    ),
    Case("tgz", holds("a.TGZ", gzip.compress(TAR)), 100),
    Case("tar without a name", holds("shard-0", TAR), 100),
    Case("long names of tar", holds("a.tar", tar([(f"{'d' * 200}/{n}.txt", f"text {n}".encode() * 9) for n in range(20)], tarfile.PAX_FORMAT)), 20),
    Case("tars that were joined", holds("a.tar", TAR + tar(samples(300, 50))), 150),
    Case("an empty tar", holds("a.tar", tar([]))),
    Case("a damaged header", holds("a.tar", turned(TAR, SECOND + 20)), 99, 1, reason="damaged header"),
    Case("the first header damaged", holds("a.tar", turned(TAR, 20)), 99, 1, reason="damaged header"),
    Case("cut between two members", holds("a.tar", TAR[:SECOND]), 50, 1, reason="two blocks of zeros"),
    Case("cut within a header", holds("a.tar", TAR[: SECOND + 100]), 50, 1, reason="two blocks of zeros"),
    Case("cut within a member", holds("a.tar", TAR[: SECOND + 600]), 50, 1, reason="within a member"),
    Case("one block of zeros", holds("a.tar", TAR.rstrip(b"\0")[:-3].ljust(1024 * 100, b"\0") + b"\0" * 512), 100, 1),
    Case("a tar of something else", holds("a.tar", b"this is no tar\n" * 100), 0, 10, reason="damaged header"),
    Case("a member's JSON with a mark", holds("a.tar", tar([("a.json", BOM + b'{"text": "one text"}')])), 1),
    Case("a member's number of 5000 digits", holds("a.tar", tar([("a.json", BIG), ("b.txt", b"more text")])), 2),
    Case("a member's deep JSON", holds("a.tar", tar([("a.json", DEEP), ("b.txt", b"more text")])), 1, 1),
    Case("a sample without a text", holds("a.tar", tar([("a.cls", b"1"), ("b.txt", b"more text")])), 1, 1),
    Case("a tar of the oldest form without a name", holds("shard-0", unmarked(TAR)), 100),
    Case("files of many texts in a tar", holds("a.tar", tar([("a.jsonl", lines(500, 9)), ("b.parquet", ROWS)])), 209),
    Case("compressed files in a tar", holds("a.tar", tar([("a.jsonl.gz", PACKED), ("b.txt.gz", gzip.compress(b"one text"))])), 21),
    Case("a broken file in a tar", holds("a.tar", tar([("a.parquet", ROWS[:-20])])), 0, lost(len(ROWS) - 20), reason="footer"),
    # Parquet
    Case("Parquet", holds("a.parquet", ROWS), 200),
    *(Case(f"Parquet as {name}", holds(name, ROWS), 200) for name in ("a.pq", "a.parq", "part-0", "a.PARQUET")),
    Case("compressed Parquet", holds("a.parquet.gz", gzip.compress(ROWS)), 200),
    *(
        Case(f"a column of {kind}", holds("a.parquet", parquet(column(100, 60, kind))), 60)
        for kind in (pa.large_string(), pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.string()))
    ),
    Case("a value that is not UTF-8", holds("a.parquet", parquet(one_bad(3000))), 2999, 1, reason="not UTF-8"),
    Case("a column twice", holds("a.parquet", parquet(pa.table([strings([b"x"] * 5)] * 2, ["text", "text"]))), 0, 5, reason="2 columns"),
    Case("another column", holds("a.parquet", parquet(pa.table({"body": ["x"] * 5}))), 0, 5, reason="'body'"),
    Case("a column of numbers", holds("a.parquet", parquet(pa.table({"text": [1, 2]}))), 0, 2, reason="got int"),
    Case("a column of lists", holds("a.parquet", parquet(pa.table({"text": [["x"], []]}))), 0, 2, reason="got list"),
    Case("times beyond the year 9999", holds("a.parquet", parquet(pa.table({"text": pa.array([10**15], pa.timestamp("ms"))}))), 0, 1),
    Case("nulls", holds("a.parquet", parquet(pa.table({"text": ["one text", None, ""]}))), 1, 2),
    Case("no rows", holds("a.parquet", parquet(pa.table({"text": pa.array([], pa.string())})))),
    Case("a damaged group of rows", holds("a.parquet", turned(ROWS, MIDDLE, 40)), 150, 50, reason="page integrity"),
    Case("a cut footer", holds("a.parquet", ROWS[:-20]), 0, lost(len(ROWS) - 20), reason="footer"),
    Case("Parquet's first bytes alone", holds("a.parquet", b"PAR1"), 0, 1),
    Case("no Parquet", holds("a.parquet", b"not Parquet"), 0, 1, reason="arquet"),
    Case("encrypted Parquet", holds("a.parquet", b"PARE" + b"x" * 140), 0, 1, reason="encrypted"),
    # Arrow
    Case("an Arrow stream", holds("a.arrow", STREAM), 200),
    Case("an Arrow file", holds("a.arrow", FILE), 200),
    Case("an Arrow file as .feather", holds("a.feather", FILE), 200),
    Case("an Arrow stream without a name", holds("part-0", STREAM), 200),
    Case("compressed Arrow", holds("a.arrow.gz", gzip.compress(STREAM)), 200),
    Case("Arrow streams that were joined", holds("a.arrow", STREAM + ipc(column(300, 50))), 250),
    Case("an Arrow value that is not UTF-8", holds("a.arrow", ipc(one_bad(500))), 499, 1, reason="not UTF-8"),
    Case("an Arrow column twice", holds("a.arrow", ipc(pa.table([strings([b"x"] * 5)] * 2, ["text", "text"]))), 0, 5),
    Case("views of texts", holds("a.arrow", ipc(column(100, 60, pa.string_view()))), 60),
    Case("an Arrow time beyond the year 9999", holds("a.arrow", ipc(pa.table({"text": pa.array([10**12], pa.timestamp("s"))}))), 0, 1),
    Case("an Arrow stream without its end", holds("a.arrow", STREAM[:-8]), 200, 1, reason="must end in its mark"),
    Case("an Arrow stream that is cut", holds("a.arrow", STREAM[: len(STREAM) * 5 // 8]), 100, 1, reason="cannot be read"),
    Case("an Arrow file that is cut", holds("a.arrow", FILE[:3000]), 0, lost(3000), reason="Not an Arrow file"),
    Case("no Arrow", holds("a.arrow", b"not Arrow"), 0, 1),
    # names
    Case("hidden files and folders", all_of(holds(".git/a.txt", b"x"), bytes_name(b".caf\xe9", b"x"), holds(".x", b"x"))),
    Case("markers of Spark", all_of(holds("_SUCCESS", b""), holds("_committed_8812", b'{"x": 1}'), holds("_temporary/0/part-0", b"half"))),
    Case("names of Python", all_of(holds("__init__.py", b"import this\n"), holds("_inner.py", b"import that\n"), holds("__pycache__/x.pyc", b"x")), 2),
    Case("a name that is not UTF-8", bytes_name(b"caf\xe9.jsonl", lines(100, 9)), 9),
    Case("it is bad", bytes_name(b"caf\xe9.txt", b"\xff"), 0, 1),
    Case("it does not fit", bytes_name(b"caf\xe9.txt", b"\xff"), 0, source="in/*.jsonl"),
    Case("names with an end of line", holds("a\nb.jsonl", lines(100, 9)), 9),
    Case("a link to a file", all_of(holds("a.jsonl", lines(100, 9)), link("latest", "a.jsonl")), 9),
    Case("a hard link", all_of(holds("a.jsonl", lines(100, 9)), lambda at: os.link(at / "a.jsonl", at / "b")), 9),
    Case("the cache of the Hub", all_of(holds("blobs/1f2e", array(100, 9)), holds("snap/x", b""), link("snap/a.json", "../blobs/1f2e")), 9),
    Case("links to folders in a ring", all_of(holds("k/a.jsonl", lines(100, 9)), link("k/up", ".."), link("self", ".")), 9),
    Case("a link to nothing", link("b.jsonl", "gone.jsonl"), 0, 1, reason="a link to a file that is not there"),
    Case("links to one another", all_of(link("a", "b"), link("b", "a")), 0, 2),
    Case("a pipe", lambda at: os.mkfifo(at / "pipe")),
    Case("a folder called as a glob", holds("[D_DATA]/x/a.jsonl", lines(100, 9)), 9, source="in/{[[]D_DATA],.}/**/*.jsonl"),
]
# fmt: on


def data(tmp_path: Path, case: Case, builder: str) -> Data:
    given = {
        "corpus": str(tmp_path / f"corpus-{builder}"),
        "groups": {"docs": str(tmp_path / case.source)},
        "sequence_length": 8,
        "validation": 0.2,
        "test": 0.2,
        "bad_share": 0.95,
        "builder": builder,
    }
    return Data(**{**given, **case.changes})


def both(monkeypatch, tmp_path: Path, case: Case) -> Any:
    """Return what the two builders say of a folder, which must be one thing."""
    monkeypatch.setattr(
        stages.build_group_on_ray, "__defaults__", (lambda function, items: map(function, items),)
    )
    (tmp_path / "in").mkdir()
    GOOD(tmp_path / "in")
    case.make(tmp_path / "in")
    found = []
    for builder in ("local", "ray"):
        group = build_corpus(data(tmp_path, case, builder), lambda line: None).groups["docs"]
        found.append((group.documents, group.skipped, group.duplicates, group.reasons))
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_odd_source_gives_what_it_holds(monkeypatch, tmp_path, case) -> None:
    documents, bad, twice, reasons = both(monkeypatch, tmp_path, case)
    assert (documents - 60, bad, twice) == (case.documents, case.bad, case.twice), reasons
    assert case.reason in reasons and (reasons == "") == (bad == 0)


@pytest.mark.parametrize(
    ("make", "source", "said"),
    [
        (all_of(), "in/absent/more.jsonl", "no file or folder of this name; what is there of it is"),
        (all_of(), "in", "no file in this folder"),
        (holds("_SUCCESS", b""), "in", "but 1 whose names begin with _"),
        (holds(".git/x", b"x"), "in", "no file in this folder"),
        (holds("a.jsonl", b"x"), "in/*.parquet", "no file fits this pattern"),
        (holds("a.jsonl", b"x"), "in/{a,b}.jsonl", "b.jsonl is not there"),
        (lambda at: os.mkfifo(at / "pipe"), "in/pipe", "no file or folder of this name that can be read"),
        (holds("a.txt", b" \n"), "in", "no text of its own: all its files are empty"),
        (holds("a.txt", b"\xff"), "in", "1 of 1 documents cannot be used"),
        (holds("a.jsonl", lines(0, 9, "body")), "in", "set data.text_field to one of ['body', 'id']"),
        (holds("a.jsonl.zip", zipped("a", b"x")), "in", "a zip archive: decompress it"),
        (holds("a.parquet", ROWS[:-20]), "in", "cannot be read: Parquet magic bytes not found in footer"),
        (holds("a.tar", TAR[:300]), "in", "cannot be used"),
        (bytes_name(b"caf\xe9.txt", b"\xff"), "in", r"caf\xe9.txt"),
    ],
)
def test_what_gives_nothing_is_refused_in_one_line(tmp_path, make, source, said) -> None:
    (tmp_path / "in").mkdir()
    make(tmp_path / "in")
    settings = data(tmp_path, Case("", make, source=source), "local").model_copy(update={"bad_share": 0.1})
    with pytest.raises(InputError) as raised:
        build_corpus(settings, lambda line: None)
    line = str(raised.value)
    assert said in line and "data.groups.docs" in line and "\n" not in line
    line.encode()  # can be printed
    assert not (tmp_path / "corpus-local" / "manifest.json").exists()


@pytest.mark.parametrize("of", ["a.jsonl.gz", "a.tar.gz", "a.jsonl.xz"])
def test_what_one_wrong_bit_of_a_compressed_file_loses_is_counted(tmp_path, of) -> None:
    plain = tar(samples(0, 2000)) if "tar" in of else lines(0, 2000)
    packed = lzma.compress(plain) if of.endswith("xz") else gzip.compress(plain)
    for at in range(1, 8):
        content = turned(packed, len(packed) * at // 8)
        file = SourceFile(partial(io.BytesIO, content), of, len(content), 10**9, text_pick("text"))
        found = [each if isinstance(each, Bad) else checked_content(each, 10**6) for each in contents(file)]
        good = sum(not isinstance(each, Bad) for each in found)
        bad = sum(each.documents for each in found if isinstance(each, Bad))
        assert bad and 1100 < good + bad < 2300  # of xz only the file's own bytes say how many there were
