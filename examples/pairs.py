"""Write the rows of examples/embedder.yaml: docstrings of Python's standard library, as pairs of vectors.

A query is the first sentence of a docstring, its positive the rest. A vector counts the words of a text, each
at a place that a hash of it gives. `python examples/pairs.py` writes runs/pairs/functions.parquet and
classes.parquet, within a minute.
"""

import importlib
import inspect
import pkgutil
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WIDTH = 512  # numbers of a vector
LEAST = 40  # characters that the rest of a docstring must have
MODULES = (
    "argparse",
    "array",
    "ast",
    "asyncio",
    "calendar",
    "collections",
    "concurrent.futures",
    "configparser",
)
MODULES += (
    "csv",
    "datetime",
    "decimal",
    "difflib",
    "email",
    "enum",
    "fractions",
    "ftplib",
    "functools",
    "gzip",
)
MODULES += (
    "heapq",
    "html",
    "http",
    "imaplib",
    "inspect",
    "io",
    "ipaddress",
    "itertools",
    "json",
    "locale",
    "logging",
)
MODULES += (
    "mailbox",
    "math",
    "multiprocessing",
    "numbers",
    "os",
    "pathlib",
    "pickle",
    "random",
    "shutil",
    "smtplib",
)
MODULES += ("socket", "sqlite3", "ssl", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap")
MODULES += (
    "threading",
    "turtle",
    "typing",
    "unittest",
    "urllib",
    "uuid",
    "warnings",
    "weakref",
    "xml",
    "zipfile",
)


def modules() -> Iterator[object]:
    """Yield the modules, and those within the packages among them."""
    for name in MODULES:
        top = imported(name)
        inside = pkgutil.iter_modules(getattr(top, "__path__", []))
        named = [each.name for each in inside if not each.name.startswith(("_", "test", "windows"))]
        yield from filter(None, [top, *(imported(f"{name}.{each}") for each in named)])


def imported(name: str) -> object | None:
    """Return a module, or None where this Python lacks it: turtle, say, needs a screen's library."""
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"left out {name}: it cannot be imported here", file=sys.stderr)
        return None


def texts() -> tuple[dict[str, str], dict[str, str]]:
    """Return the docstrings of functions and of classes, by first sentence."""
    functions: dict[str, str] = {}
    classes: dict[str, str] = {}
    for module in modules():
        parts = [value for name, value in vars(module).items() if not name.startswith("_")]
        parts += [method for part in parts if inspect.isclass(part) for method in vars(part).values()]
        for part in parts:
            if not (inspect.isclass(part) or inspect.isroutine(part)):
                continue
            first, _, rest = re.sub(r"\s+", " ", inspect.getdoc(part) or "").partition(". ")
            if len(rest) >= LEAST:
                (classes if inspect.isclass(part) else functions)[first] = rest
    return functions, classes


def vector(text: str) -> np.ndarray:
    """Return the hashed counts of a text's words, of length 1: `(WIDTH,)`."""
    found = np.zeros(WIDTH, np.float32)
    for word in re.findall(r"[a-z]+", text.lower()):
        place = zlib.crc32(word.encode())
        found[place % WIDTH] += 1 if place // WIDTH % 2 else -1
    found = np.sign(found) * np.log1p(np.abs(found))
    return found / max(float(np.linalg.norm(found)), 1e-9)


def column(lines: list[str]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate([vector(each) for each in lines])), WIDTH)


if __name__ == "__main__":
    place = Path("runs/pairs")
    place.mkdir(parents=True, exist_ok=True)
    for name, found in zip(("functions", "classes"), texts(), strict=True):
        table = pa.table({"query": column(list(found)), "positive": column(list(found.values()))})
        pq.write_table(table, place / f"{name}.parquet")
        print(f"wrote {len(found)} pairs to {place}/{name}.parquet")
