"""The notebook of docs/: its cells, and how it is run. `python -m tests.helpers.notebook` writes it again."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/notebook.ipynb"
FOLDER = "/home/me"  # stands for the folder in which the notebook is run
CELLS = [
    """# A run in a notebook

`shoal.run` trains to the end; a bar shows how far it is. The stop button ends Ray and leaves a run that can go
on. This page was executed as it stands, and a test executes it again.""",
    "import shoal\n\nfile = {\n"
    '    "name": "toy",\n'
    '    "trainable": "toy",\n'
    '    "directory": "runs/toy",\n'
    '    "training": {"steps": 40},\n'
    '    "hyperparameters": {name: {"kind": "float", "low": 0.0, "high": 1.0} for name in ("h0", "h1")},\n'
    '    "population": {"members": 4, "interval": 4},\n'
    '    "cluster": {"broods": 1},\n'
    "}\n"
    "for plan in shoal.plan(file):\n"
    '    print("\\n".join(plan.lines()))',
    "result = shoal.run(file)\nresult.status",
    "The best member, and where its weights came from:",
    "print(result.best)\nresult.best.hyperparameters",
    'result.lineage.to_pandas().tail(3)[["event", "step", "member", "parent", "score", "parent_score"]]',
    "All tables are Arrow's; the figures are Plotly's, and a cell that ends with one shows it.",
    'print(result.members.to_pandas()[["member", "score", "copied", "was_copied"]])\nsorted(result.figures)',
    "Any run directory can be opened later, also while it trains:",
    'shoal.open("runs/toy").schedule.to_pylist()[-1]',
]
PROSE = {0, 3, 6, 8}


def fresh() -> Any:
    """Return the notebook as it is before it was executed."""
    make = nbformat.v4
    cells = [
        make.new_markdown_cell(text, id=f"cell-{place}")
        if place in PROSE
        else make.new_code_cell(text, id=f"cell-{place}")
        for place, text in enumerate(CELLS)
    ]
    return make.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})


def client(book: Any, folder: Path) -> NotebookClient:
    """Return what executes a notebook in a folder, with this checkout's code."""
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["RAY_AUTH_MODE"] = "disabled"
    return NotebookClient(
        book, timeout=1120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )


def told(book: Any, folder: Path) -> list[list[str]]:
    """Return each code cell's printed lines and plain values, with the folder's name replaced."""
    found = []
    for cell in book.cells:
        if cell.cell_type == "code":
            shown = [output for output in cell.outputs if output.get("name") != "stderr"]
            texts = [each.get("text") or each.get("data", {}).get("text/plain", "") for each in shown]
            found.append([text.replace(str(folder), FOLDER) for text in texts])
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        book = fresh()
        client(book, Path(folder)).execute()
        text = nbformat.writes(book).replace(folder, FOLDER)
    for cell in (book := nbformat.reads(text, 4)).cells:
        cell.metadata.pop("execution", None)  # the times of its execution
        if cell.cell_type == "code":  # what libraries say on this machine is not for the page
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    PAGE.write_text(nbformat.writes(book) + "\n")
    sys.stdout.write(f"written: {PAGE}\n")


if __name__ == "__main__":
    main()
