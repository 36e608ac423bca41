"""`shoal track`: a run is sent to its trackers from its own records, as far as they lack it."""

import shlex
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from shoal.cluster import lease
from shoal.cluster.storage import Store
from shoal.search.checks.start import missing_package
from shoal.search.config.run import Run
from shoal.search.config.tracking import TRACKERS
from shoal.search.errors import InputError, RunFailed
from shoal.search.records import directory
from shoal.search.traces import in_one_line
from shoal.search.track.feed import Feed, Marks
from shoal.search.track.told import Records
from shoal.search.track.watching import SECONDS_FOR_TRACKERS


def track_again(run: Run, store: Store, kinds: Sequence[str] = (), anew: bool = False) -> list[str]:
    """Send to a run's trackers, or to those of these kinds, what they lack; return where each one has it.

    `anew` writes everything, into runs of their own. Without trackers in the run's file it is TensorBoard.
    Raises RunFailed if a tracker takes nothing.
    """
    if run.track and lease.alive(store):
        raise InputError(f"{store.uri} is being trained, and sends its rounds itself; wait for its end.")
    marks, records, status = Marks(store), Records(store), str(directory.summary(store).get("status"))
    if anew:
        marks.forget()
    places = []
    for given in chosen(run, kinds):
        feed = Feed(run, given, records, marks)
        try:
            if anew:
                feed.tracker.begin_anew()
            if parts := records.parts():
                feed.send(max(parts))
            if status == "done":
                feed.send_best(store)
            feed.tracker.close(status)
        except Exception as error:  # a tracker may raise anything
            said = in_one_line(str(error)).rstrip(".")
            raise RunFailed(f"track: {given.kind} takes nothing: {said}.") from error
        places.append(feed.tracker.place)
    return places


def chosen(run: Run, kinds: Sequence[str]) -> list[Any]:
    """Return the trackers of a run that are of these kinds, or new ones; without kinds those of the run."""
    if unknown := [kind for kind in kinds if kind not in TRACKERS]:
        raise InputError(f"--to: must be one of {', '.join(TRACKERS)}, got {unknown[0]}.")
    if not kinds and run.track:
        return run.track
    named = {each.kind: each for each in run.track}
    found = [named.get(kind) or TRACKERS[kind](kind=kind) for kind in kinds or ["tensorboard"]]
    if problem := next(filter(None, map(missing_package, found)), ""):
        raise InputError(f"{problem}.")
    return found


def send_best(run: Run, store: Store, say: Callable[[str], None]) -> None:
    """Send the exported best member of a finished run, as far as its trackers have taken all before."""
    if not run.track:
        return
    thread = threading.Thread(target=partial(send_files, run, store, say), name="track", daemon=True)
    thread.start()
    thread.join(SECONDS_FOR_TRACKERS)
    if thread.is_alive():
        where = shlex.quote(run.directory)
        say(f"track: the best member is still being sent; `shoal track {where}` sends it if this is too short")


def send_files(run: Run, store: Store, say: Callable[[str], None]) -> None:
    records, marks = Records(store), Marks(store)
    for given in run.track:
        try:
            feed = Feed(run, given, records, marks)
            if feed.sent >= max(records.parts()):
                feed.send_best(store)
                feed.tracker.close("done")
        except Exception as error:  # a tracker may raise anything, and the run is well all the same
            say(f"track: {given.kind} does not take the best member: {in_one_line(str(error))}")
