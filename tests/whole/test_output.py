"""Output that fails: it leads nowhere, and the command goes on."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shoal.search.errors import RunFailed
from shoal.search.output import Steady, steady, warning_in_one_line, write_document

ROOT = Path(__file__).parents[2]
TOY = str(ROOT / "examples/toy.yaml")


@pytest.fixture
def output(monkeypatch):
    """Let standard output be a stream for the test; returns how to set it."""

    def to(stream: io.TextIOBase) -> None:
        monkeypatch.setattr(sys, "stdout", stream)

    return to


def closed_pipe() -> io.TextIOWrapper:
    read, write = os.pipe()
    os.close(read)
    return io.TextIOWrapper(io.FileIO(write, "w"), encoding="utf-8")


def test_a_pipe_that_closes_is_no_error_and_what_waits_in_it_goes_nowhere(output) -> None:
    stream = closed_pipe()
    output(stream)
    with steady():
        print("one line")
        print("another", flush=True)
        write_document("schedule: []\n")
        assert sys.stdout.failure.errno == errno.EPIPE
    stream.close()  # else Python would say at the end that it cannot


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_document_that_does_not_fit_on_the_disk_is_a_failure_and_progress_is_not(output) -> None:
    output(io.TextIOWrapper(io.FileIO("/dev/full", "w"), encoding="utf-8"))
    with steady():
        print("step 4/8", flush=True)
        with pytest.raises(RunFailed, match="standard output cannot be written: No space left on device"):
            write_document("schedule: []\n")


@pytest.mark.parametrize(("encoding", "said"), [("ascii", b"gr\\xf6\\xdfe"), ("latin-1", b"gr\xf6\xdfe")])
def test_letters_that_an_encoding_lacks_are_written_by_their_numbers(
    output, encoding: str, said: bytes
) -> None:
    raw = io.BytesIO()
    output(io.TextIOWrapper(raw, encoding=encoding))
    with steady():
        print("gr\u00f6\u00dfe", flush=True)
        print("\u2713 \udcff", flush=True)
    assert raw.getvalue() == said + b"\n\\u2713 \\udcff\n"


def test_streams_are_as_they_were_afterwards() -> None:
    before = sys.stdout, sys.stderr
    with steady():
        inner = sys.stdout
        assert isinstance(inner, Steady)
        with steady():
            assert sys.stdout is inner
        assert sys.stdout is inner
    assert (sys.stdout, sys.stderr) == before


def test_a_command_without_standard_output_does_its_work() -> None:
    program = [sys.executable, "-m", "shoal", "validate", TOY]
    command = f"{subprocess.list2cmdline(program)} >&-"
    done = subprocess.run(command, shell=True, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=400)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_warning_has_no_line_of_our_code() -> None:
    assert (
        warning_in_one_line(RuntimeWarning("late;\n  again."), RuntimeWarning, "a.py", 3)
        == "warning: late; again.\n"
    )
