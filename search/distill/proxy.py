"""The labelled task by which a run of kind distill may rank its networks."""

from pathlib import Path

from shoal.search.config.distill import ProxySection
from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.tokenizers import open_tokenizer
from shoal.trainables.distill.proxy import Labelled, labelled

Lines = list[tuple[str, str]]  # text and label


def read_lines(key: str, path: str) -> Lines:
    """Return the texts and labels of a file; raises InputError if a line has no label, and names the line."""
    place = f"distill.search.proxy.{key}"
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{place}: {path} cannot be read: {error}.") from error
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words, tab, label = line.rpartition("\t")
        if not tab:
            raise InputError(f"{place}: a line must be a text, a tab and a label, but line {number} is not.")
        found.append((words, label))
    return found


def check_proxy(proxy: ProxySection) -> tuple[Lines, Lines]:
    """Return the lines of both files; raises InputError if they are too few or their labels do not fit."""
    train, test = read_lines("train", proxy.train), read_lines("test", proxy.test)
    if len(train) < proxy.batch:
        raise InputError(f"distill.search.proxy.batch: must be at most {len(train)}, the lines of train.")
    known = {label for _, label in train}
    strange = sorted({label for _, label in test} - known)
    if len(known) < 2 or not test or strange:
        other = ", ".join(strange[:5]) or f"{len(test)} lines"
        raise InputError(
            f"distill.search.proxy: train must have at least two labels, and test no others, but train has "
            f"{', '.join(sorted(known)[:5]) or 'none'} and test {other}."
        )
    return train, test


def proxy_rows(run: Run) -> tuple[Labelled, Labelled] | None:
    """Return the rows that networks are tuned on and those they are judged by, if there is a proxy task."""
    proxy = run.distilling.search.proxy
    if proxy is None:
        return None
    train, test = check_proxy(proxy)
    names = sorted({label for _, label in train})
    tokenizer, length = open_tokenizer(run.data.tokenizer), run.data.sequence_length
    rows = [
        labelled([text for text, _ in lines], [names.index(label) for _, label in lines], tokenizer, length)
        for lines in (train, test)
    ]
    return rows[0], rows[1]
