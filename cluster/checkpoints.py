"""Checkpoints of a population: one file a member and one for the decisions, each written whole.

A checkpoint counts only when all of its files are there, so no commit step is needed and a run can
die between any two writes. The decisions say under which of its own rounds each member's file lies;
where members keep step with one another it is the round of the checkpoint.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from cluster import tree
from cluster.storage import Store

Part = tuple[int, int]  # which of how many files that a member's state lies in
WHOLE: Part = (0, 1)
FOLDER, DECISIONS = "checkpoints", "decisions.json"


class Writer:
    """Saves members beside the training that goes on: `save` returns at once, `wait` when all is written."""

    def __init__(self, store: Store):
        self.store = store
        self.thread = ThreadPoolExecutor(1)
        self.writing: list[Future[None]] = []

    def save(self, round_: int, member: int, state: Any, part: Part = WHOLE) -> None:
        """Begin to write a state, which must be a copy that nobody changes any more."""
        self.writing.append(self.thread.submit(save_member, self.store, round_, member, state, part))

    def wait(self) -> None:
        """Wait until all is written; raises what a write raised."""
        for future in self.writing:
            future.result()
        self.writing.clear()


def save_member(store: Store, round_: int, member: int, state: Any, part: Part = WHOLE) -> None:
    store.write(_member(round_, member, part), tree.dumps(state))


def load_member(store: Store, round_: int, member: int, part: Part = WHOLE) -> Any:
    return tree.loads(store.read(_member(round_, member, part)))


def save_decisions(store: Store, round_: int, decisions: dict[str, Any], saved: Sequence[int]) -> None:
    """Save the decisions, and under which round each member's own file lies; 0 is a member's start."""
    store.write_json(_name(round_, DECISIONS), {"saved": list(saved), **decisions})


def load_decisions(store: Store, round_: int) -> Any:
    return store.read_json(_name(round_, DECISIONS))


def latest(store: Store, members: Iterable[int], parts: int = 1) -> int | None:
    """Return the newest checkpoint of which the decisions and all these members are there, or None."""
    wanted = list(members)
    for round_ in reversed(_rounds(store)):
        if not store.exists(_name(round_, DECISIONS)):
            continue
        saved = load_decisions(store, round_)["saved"]
        rounds = {saved[member] for member in wanted} - {0}
        found = {_name(each, file) for each in rounds for file in store.names(_folder(each))}
        if all(found >= _files(saved[member], member, parts) for member in wanted if saved[member]):
            return round_
    return None


def newest(store: Store, member: int) -> int:
    """Return the last round under which this member's file lies, 0 if there is none."""
    return next((each for each in reversed(_rounds(store)) if store.exists(_member(each, member))), 0)


def prune(store: Store, before: int, kept: Sequence[int] = ()) -> None:
    """Delete the checkpoints of all rounds before this one but those that are to be kept."""
    for round_ in _rounds(store):
        if round_ < before and round_ not in kept:
            store.delete(_folder(round_))


def forget_decisions(store: Store, round_: int) -> None:
    store.delete(_name(round_, DECISIONS))


def forget_members(store: Store, member: int, rounds: Iterable[int]) -> None:
    for round_ in rounds:
        store.delete(_member(round_, member))


def forget_all_but(store: Store, round_: int | None, parts: int = 1, whole: Sequence[int] = ()) -> None:
    """Delete what is not part of this checkpoint, from before and after it; all if there is none."""
    kept: set[str] = set()
    if round_ is not None:
        saved = load_decisions(store, round_)["saved"]
        kept = {_name(round_, DECISIONS)}.union(
            *(_files(each, member, parts) for member, each in enumerate(saved))
        )
    for each in set(_rounds(store)) - set(whole):
        files = [_name(each, file) for file in store.names(_folder(each))]
        if not kept.intersection(files):
            store.delete(_folder(each))
            continue
        for file in set(files) - kept:
            store.delete(file)


def _rounds(store: Store) -> list[int]:
    return [int(folder.removeprefix("round-")) for folder in store.names(FOLDER)]


def _folder(round_: int) -> str:
    return f"{FOLDER}/round-{round_:06d}"


def _name(round_: int, file: str) -> str:
    return f"{_folder(round_)}/{file}"


def _member(round_: int, member: int, part: Part = WHOLE) -> str:
    place, parts = part
    suffix = "" if parts == 1 else f"-part-{place:04d}-of-{parts:04d}"
    return _name(round_, f"member-{member:05d}{suffix}.safetensors")


def _files(round_: int, member: int, parts: int) -> set[str]:
    return {_member(round_, member, (part, parts)) for part in range(parts)}
