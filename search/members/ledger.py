"""The ledger of losses by row: the driver opens it, and workers feed and read it."""

from collections.abc import Callable
from typing import Any

from shoal.cluster.ledger import Ledger, Sender, forget_after, start_ledger
from shoal.cluster.storage import Store
from shoal.policies.sampling.losses import LastLosses
from shoal.search.config.run import Run
from shoal.search.corpus.build import load_corpus
from shoal.search.members.views import Shared


def open_ledger(run: Run, store: Store, decided: int) -> Ledger | None:
    """Start the ledger of a run whose broods share losses, in its state after the decision of this round."""
    if run.sampling.view != "brood":
        return None
    forget_after(store, decided)
    # a brood that returns to its checkpoint reads the marks since then
    return start_ledger(LastLosses, ledger_rows(run), store.uri, keep=run.checkpoint.every + 1)


def ledger_rows(run: Run) -> int:
    """Return the number of rows of the ledger: each brood has a loss for each training row."""
    groups = load_corpus(run.data).groups.values()
    return run.cluster.broods * sum(group.splits["train"].rows for group in groups)


def after_marks(ledger: Ledger | None, give: Callable[[int, Any], Any]) -> Callable[[int, Any], None]:
    """Return a function that gives orders, and marks the ledger first: no member has trained on yet."""

    def give_orders(round_: int, orders: Any) -> None:
        if ledger is not None and orders is not None:
            ledger.mark(round_)
        give(round_, orders)  # the call returns at once, without an answer from the mailbox

    return give_orders


def way_to_ledger(ledger: Ledger | None, run: Run, brood: int) -> Shared | None:
    """Return how a worker of a brood feeds and reads the ledger."""
    if ledger is None:
        return None
    first = brood * (ledger.rows // run.cluster.broods)
    return Shared(Sender(ledger), first, run.population.interval)
