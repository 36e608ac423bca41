"""The notebook of docs/ was executed as it stands, and runs to the same end again."""

import re
from pathlib import Path

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

import nbformat

from tests.helpers.notebook import CELLS, PAGE, client, fresh, told

SECONDS = re.compile(r"\d+(\.\d+)? s$", re.MULTILINE)  # what differs from run to run


def test_the_notebook_has_these_cells_and_no_trace_of_a_machine() -> None:
    book = nbformat.read(PAGE, 4)
    nbformat.validate(book)
    assert [cell.source for cell in book.cells] == CELLS
    assert all(cell.outputs for cell in book.cells if cell.cell_type == "code"), "it was executed"
    assert not re.search(r"/tmp/|site-packages|/root/", PAGE.read_text())


@pytest.mark.ray
def test_the_notebook_runs_to_what_it_shows(tmp_path: Path) -> None:
    book = fresh()
    client(book, tmp_path).execute()
    before = told(nbformat.read(PAGE, 4), tmp_path)
    after = told(book, tmp_path)
    for shown, found in zip(before, after, strict=True):
        assert [SECONDS.sub("", text) for text in found] == [SECONDS.sub("", text) for text in shown]
    bars = [output.data["text/html"] for output in book.cells[2].outputs if "<progress" in str(output.data)]
    assert len(bars) == 1 and '<progress value="10" max="10"' in bars[0] and "step 40/40" in bars[0]


INTERRUPTED = """
import glob, os, signal, threading, time

def stop():
    while not glob.glob("runs/toy/checkpoints/round-*/decisions.json"):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)  # what a notebook's stop button sends to its kernel

threading.Thread(target=stop).start()
try:
    shoal.run(file, {"training.steps": 4000})
except shoal.Interrupted as error:
    print(error)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_an_interrupted_cell_ends_ray_and_the_run_goes_on(tmp_path: Path) -> None:
    book = fresh()
    make = nbformat.v4.new_code_cell
    last = 'print(shoal.open("runs/toy").resume().status)'
    asked = 'import ray\nprint(ray.is_initialized(), shoal.open("runs/toy").status)'
    cells = [book.cells[1], make(INTERRUPTED), make(asked), make(last)]
    book.cells = cells
    client(book, tmp_path).execute()
    said = ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]
    assert "stopped before the end. Continue with `shoal resume" in said[1]
    assert said[2].split() == ["False", "interrupted"]
    assert "done" in said[3].split()
