"""What the best member takes once its weights are rounded and coded, in a run with a prior."""

from shoal.search.report.page import html_table, section
from shoal.search.report.story import Story
from shoal.trainables.coding import STEP_OF_LEVELS

COLUMNS_OF_CODED = ("bits a weight", "entropy", "weights that are 0", "coded, kB", "float32, kB")


def coded(story: Story) -> str:
    """Return the table of coded size, or nothing where no prior aims at it."""
    told = story.summary.get("coded")
    if not told:
        return ""
    row = [
        f"{told['bits']:.2f}",
        f"{told['entropy']:.2f}",
        f"{told['zeros']:.1%}",
        f"{told['bytes'] / 1000:,.0f}",
        f"{told['weights'] * 4 / 1000:,.0f}",
    ]
    about = (
        f"The winner's matrices, rounded to multiples of {STEP_OF_LEVELS:g} of their deviations and coded by "
        f"exp-Golomb codes with their tables; entropy is the least that codes of single weights take. The "
        f"loss is that of the weights before they were rounded, and the export is not coded."
    )
    table = html_table(COLUMNS_OF_CODED, [row], label="Coded size")
    return section("Coded size", f'<p class="soft">{about}</p>', table)
