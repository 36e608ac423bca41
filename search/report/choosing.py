"""The report's section on the rows that were chosen before the run, as `shoal select` shows them."""

from shoal.cluster.storage import BrokenFile, Store
from shoal.search.report.page import section
from shoal.search.report.story import Story
from shoal.search.selection.page import parts_of
from shoal.search.selection.shown import SHOWN_FILE
from shoal.search.selection.writing import CHOSEN, SELECTIONS


def selection_section(story: Story) -> str:
    """Return nothing for a run without a selection, or whose chosen rows are gone or cannot be read."""
    said = story.settings.get("selection") or {}
    if not said.get("chosen"):
        return ""
    folder = f"{SELECTIONS}/{said['chosen']}"
    try:
        store = Store(said["corpus"])
        record = store.read_json(f"{folder}/{CHOSEN}", "policy", "groups", "reasons", "kl")
        shown = store.read_json(f"{folder}/{SHOWN_FILE}", "histograms", "rows")
    except (FileNotFoundError, BrokenFile):
        return section("Chosen rows", f"<p>What was chosen is no longer in {said['corpus']}.</p>")
    told = f"<p>{record['kept']} of {record['rows']} rows were kept.</p>"
    return section("Chosen rows", told, *parts_of(record, shown))
