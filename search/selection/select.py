"""Select the rows of a run's corpus: build pool and target, score, decide, write; once for the same inputs."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shoal.cluster.storage import Store
from shoal.policies.selection.dsir import HELD_RATIO
from shoal.policies.selection.ngrams import kl_divergence
from shoal.search.config.run import Run
from shoal.search.config.sections import Data
from shoal.search.config.selection import NgramScore, target_place
from shoal.search.corpus.build import prepare_corpus
from shoal.search.corpus.manifest import Manifest, find_corpus, unwritable
from shoal.search.corpus.stages import one_connection
from shoal.search.corpus.staging import staging_folder
from shoal.search.errors import InputError
from shoal.search.selection.corpora import Corpus, key_of_values, read_columns
from shoal.search.selection.deciding import Decided, check_leak, decide_rows, pool_rows
from shoal.search.selection.duplicates import duplicate_folder
from shoal.search.selection.fitting import gram_counts
from shoal.search.selection.held_out import read_held_out
from shoal.search.selection.interface import has_texts
from shoal.search.selection.leaks import Leak, find_leak
from shoal.search.selection.scoring import add_scores
from shoal.search.selection.shown import SHOWN_FILE, shown_of
from shoal.search.selection.stages import give_memory_back
from shoal.search.selection.writing import CHOSEN, SELECTIONS, TRAIN, write_decisions, write_selected

Say = Callable[[str], None]


class Chosen(NamedTuple):
    """A finished selection."""

    data: Data  # where the chosen rows are
    record: dict[str, Any]
    folder: str  # its decisions and its record are there, in the corpus of the chosen rows


@one_connection()
def select_corpus(run: Run, report: Say, renew: bool = False) -> Chosen:
    """Return the selection of a run's file; make it if it is not there.

    With `renew` pool and target are built again if their sources have changed.
    """
    selection = run.selection
    assert selection is not None
    place = run.data.model_copy(update={"corpus": place_of(run), "content": None})
    check_chosen_place(place)
    pool = Corpus(run.data, prepare_corpus(run.data, report, renew=renew), tuple(run.unseen))
    targets = target_of(run, report, renew)
    same = duplicate_folder(run, pool, selection.duplicates, report) if selection.duplicates else ""
    # held-out rows of the target are scored by the pool's own scorer
    aims = selection.policy.build().aims - {HELD_RATIO}
    folders, theirs = add_scores(run, pool, targets, same, bool(aims), report)
    named = {
        "pool": pool.manifest.content,
        "target": targets.manifest.content if targets else None,
        "scores": folders,
        "same": same,
        "selection": selection.model_dump(exclude={"corpus", "chosen", "scores", "target"}),
        "seed": run.seed,
        "unseen": run.unseen,
    }
    folder = f"{SELECTIONS}/{key_of_values(named)}"
    if (found := finished(place, folder)) is not None:
        return found
    began = time.perf_counter()
    decided = decide_pool(run, pool, targets, folders, theirs, same, report)
    manifest = write_selected(pool, place, decided)
    give_memory_back()
    write_decisions(Store(place.corpus), folder, pool, decided)
    give_memory_back()
    Store(place.corpus).write_json(f"{folder}/{SHOWN_FILE}", shown_of(pool, decided))
    said = said_of(run, pool, decided)
    del decided  # it is written, and the actors that count n-grams need the room
    give_memory_back()
    place = place.model_copy(update={"content": manifest.content})
    record = {
        **named,
        **said,
        "content": manifest.content,
        "kl": kl_to_target(run, pool, Corpus(place, manifest, pool.unseen), targets),
        "seconds": round(time.perf_counter() - began, 3),
    }
    Store(place.corpus).write_json(f"{folder}/{CHOSEN}", record)
    return Chosen(place, record, folder)


def place_of(run: Run) -> str:
    assert run.selection is not None
    return run.selection.corpus or f"{run.data.corpus}-selected"


def check_chosen_place(place: Data) -> None:
    """Raise InputError where the chosen rows cannot be written: that shall be known before hours of scoring."""
    try:
        store = Store(place.corpus)
        if store.exists(SELECTIONS):  # a selection that is there may lie where we may only read
            return
        with staging_folder(store):
            pass
    except (OSError, ValueError, pa.ArrowException) as error:
        raise unwritable(place, error, "selection.corpus") from error


def finished(place: Data, folder: str) -> Chosen | None:
    """Return a selection that is there whole, or None."""
    store = Store(place.corpus)
    if not store.exists(f"{folder}/{CHOSEN}"):
        return None
    record: dict[str, Any] = store.read_json(f"{folder}/{CHOSEN}", "content")
    place = place.model_copy(update={"content": record["content"]})
    return Chosen(place, record, folder) if find_corpus(place) is not None else None


def target_of(run: Run, report: Say, renew: bool) -> Corpus | None:
    """Build the target as a corpus of its own beside the pool."""
    assert run.selection is not None
    if not run.selection.target:
        return None
    changes = {"groups": run.selection.target, "corpus": target_place(run.data.corpus), "content": None}
    data = run.data.model_copy(update=changes)
    try:
        # rows are compared with its training rows alone
        return Corpus(data, prepare_corpus(data, report, renew=renew, needed=[TRAIN]))
    except InputError as error:
        raise InputError(str(error).replace("data.groups.", "selection.target.")) from error


def decide_pool(
    run: Run,
    pool: Corpus,
    targets: Corpus | None,
    folders: list[str],
    theirs: list[str],
    same: str,
    report: Say,
) -> Decided:
    assert run.selection is not None
    rows = pool_rows(pool, leak_of(run, pool, targets, report), same)
    aimed: dict[str, NDArray[Any]] = {}
    if targets is not None:
        tokens = [group.splits["train"].tokens for group in targets.groups.values()]
        aimed = read_columns(targets, theirs) | {"mass": np.array(tokens, np.float64)}
        if HELD_RATIO in run.selection.policy.build().aims:
            aimed |= read_held_out(pool, folders)
    give_memory_back()
    decided = decide_rows(run, pool, rows, folders, aimed, report)
    give_memory_back()
    return decided


def leak_of(run: Run, pool: Corpus, targets: Corpus | None, report: Say) -> Leak | None:
    """Return which rows stand in the target too, if there is one; raises InputError if they are many."""
    assert run.selection is not None
    if targets is None:
        return None
    leak = find_leak(pool, targets)
    check_leak(leak, run.data.bad_share, ", ".join(run.selection.target), report)
    return leak


def said_of(run: Run, pool: Corpus, decided: Decided) -> dict[str, Any]:
    """Return what a record and a page say of a selection."""
    assert run.selection is not None
    found, groups = decided.selected, {}
    for number, name in enumerate(pool.groups):
        copies = found.copies[decided.group == number]
        groups[name] = {
            "rows": len(copies),
            "kept": int((copies > 0).sum()),
            "copies": int(copies.sum(dtype=np.int64)),
        }
    counts = np.bincount(found.reason, minlength=len(found.reasons)).tolist()
    return {
        "policy": run.selection.policy.model_dump(),
        "rows": len(decided.ids),
        "kept": int((found.copies > 0).sum()),
        "copies": found.rows,
        "groups": groups,
        "reasons": {name: count for name, count in zip(found.reasons, counts, strict=True) if count},
        "facts": found.facts,
    }


def kl_to_target(run: Run, pool: Corpus, chosen: Corpus, targets: Corpus | None) -> dict[str, dict[str, float]]:
    """Return KL(target || pool) and KL(target || chosen) of hashed n-grams in nats, for each target."""
    if targets is None or not has_texts(pool.manifest.row_type):
        return {}
    settings = NgramScore(kind="ngrams")
    before, after = (gram_counts(run, corpus, settings, corpus.files) for corpus in (pool, chosen))
    found = {}
    for name, group in targets.groups.items():
        theirs = gram_counts(run, targets, settings, group.splits["train"].files)
        found[name] = {"before": kl_divergence(theirs, before), "after": kl_divergence(theirs, after)}
    return found


def selected_run(run: Run, chosen: Chosen, manifest: Manifest) -> Run:
    """Return the run that trains on the chosen rows: its data are theirs.

    Groups of which nothing was chosen are gone. If the file gives no proportions, each group has its share of
    the chosen rows, so that every chosen row counts alike.
    """
    assert run.selection is not None
    groups = {name: source for name, source in run.data.groups.items() if name in manifest.groups}
    given = run.data.proportions
    if given is not None:
        given = {name: share for name, share in given.items() if name in groups}
    elif run.mixing is None and run.kind != "mixture":
        given = {name: float(group.splits["train"].rows) for name, group in manifest.groups.items()}
    data = chosen.data.model_copy(update={"groups": groups, "proportions": given})
    key = chosen.folder.rpartition("/")[2]
    selection = run.selection.model_copy(update={"chosen": key, "corpus": chosen.data.corpus})
    return run.model_copy(update={"data": data, "selection": selection})
