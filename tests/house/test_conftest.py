"""What tests/conftest.py promises of a whole test run."""

import subprocess
import sys
from pathlib import Path

import pytest

# what is registered here runs with the destructors of libraries, after Python has ended
CRASHES = """
import atexit, ctypes, os
crash = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda given: os.abort())
ctypes.CDLL(None).__cxa_atexit(crash, None, None)
atexit.register(print, "registered functions ran")
def test_it():
    assert {holds}
"""


@pytest.mark.parametrize("holds", [True, False])
def test_the_exit_code_is_that_of_the_tests_whatever_libraries_do_at_the_end(tmp_path, holds: bool) -> None:
    (tmp_path / "test_one.py").write_text(CRASHES.format(holds=holds))
    program = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", str(tmp_path / "test_one.py")]
    done = subprocess.run(program, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == int(not holds), done.stderr
    assert f"1 {'passed' if holds else 'failed'}" in done.stdout
    assert done.stdout.rstrip().endswith("registered functions ran")
