"""Checkpoints of a population: one file a member and one for the decisions, each written whole.

A round's checkpoint counts only when all of its files are there, so no commit step is needed and a
run can die between any two writes.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from cluster import tree
from cluster.storage import Store

FOLDER = "checkpoints"


class Writer:
    """Saves members beside the training that goes on: `save` returns at once, `wait` when all is written."""

    def __init__(self, store: Store):
        self.store = store
        self.thread = ThreadPoolExecutor(1)
        self.writing: list[Future[None]] = []

    def save(self, round_: int, member: int, state: Any) -> None:
        """Begin to write a state, which must be a copy that nobody changes any more."""
        self.writing.append(self.thread.submit(save_member, self.store, round_, member, state))

    def wait(self) -> None:
        """Wait until all is written; raises what a write raised."""
        for future in self.writing:
            future.result()
        self.writing.clear()


def save_member(store: Store, round_: int, member: int, state: Any) -> None:
    store.write(_name(round_, f"member-{member:05d}.safetensors"), tree.dumps(state))


def load_member(store: Store, round_: int, member: int) -> Any:
    return tree.loads(store.read(_name(round_, f"member-{member:05d}.safetensors")))


def save_decisions(store: Store, round_: int, decisions: Any) -> None:
    store.write_json(_name(round_, "decisions.json"), decisions)


def load_decisions(store: Store, round_: int) -> Any:
    return store.read_json(_name(round_, "decisions.json"))


def latest(store: Store, members: Iterable[int]) -> int | None:
    """Return the newest round of which the decisions and all these members are there, or None."""
    needed = {f"member-{member:05d}.safetensors" for member in members} | {"decisions.json"}
    for folder in reversed(store.names(FOLDER)):
        if needed <= set(store.names(f"{FOLDER}/{folder}")):
            return int(folder.removeprefix("round-"))
    return None


def prune(store: Store, before: int) -> None:
    """Delete the checkpoints of all rounds before this one."""
    _delete(store, lambda round_: round_ < before)


def forget_after(store: Store, round_: int) -> None:
    """Delete what was saved after this round."""
    _delete(store, lambda saved: saved > round_)


def _delete(store: Store, gone: Callable[[int], bool]) -> None:
    for folder in store.names(FOLDER):
        if gone(int(folder.removeprefix("round-"))):
            store.delete(f"{FOLDER}/{folder}")


def _name(round_: int, file: str) -> str:
    return f"{FOLDER}/round-{round_:06d}/{file}"
