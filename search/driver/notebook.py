"""The progress of a run as a bar below the cell of a notebook."""

import sys
from html import escape
from typing import Any


def in_notebook() -> bool:
    """Say whether this process runs the cells of a notebook."""
    ipython: Any = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class CellBar:
    """A bar in the output of the cell that runs; each call shows it in the same place."""

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self.html = HTML
        self.place = display(HTML(""), display_id=True)

    def show(self, done: int, whole: int, line: str) -> None:
        bar = f'<progress value="{done}" max="{whole}" style="width: 100%"></progress>'
        self.place.update(self.html(f"{bar}<div>{escape(line)}</div>"))
