"""Defaults that depend on another key: they are settled once, before anything is checked."""

import math

from shoal.search.config.run import Run

EVEN_TAIL = 4  # so many members and more have one in a tail of the default fraction


def with_fitting_defaults(run: Run) -> Run:
    """Return the run whose worst member copies the best one, where there are only two or three to compare.

    A fraction that the file gives stays as it is.
    """
    exploit, compared = run.population.exploit, run.population.members // run.parts
    given = exploit.kind != "truncation" or "fraction" in exploit.model_fields_set
    if given or not 2 <= compared < EVEN_TAIL:
        return run
    fitting = exploit.model_copy(update={"fraction": math.ceil(1000 / compared) / 1000})
    return run.model_copy(update={"population": run.population.model_copy(update={"exploit": fitting})})
