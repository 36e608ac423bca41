"""Checkpoints of a population: one file a member and one for the decisions, each written whole.

A round's checkpoint counts only when all of its files are there, so no commit step is needed and a
run can die between any two writes.
"""

from collections.abc import Iterable
from typing import Any

from cluster import tree
from cluster.storage import Store

FOLDER = "checkpoints"


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
    for folder in store.names(FOLDER):
        if int(folder.removeprefix("round-")) < before:
            store.delete(f"{FOLDER}/{folder}")


def forget_after(store: Store, round_: int) -> None:
    """Delete what was saved after this round."""
    for folder in store.names(FOLDER):
        if int(folder.removeprefix("round-")) > round_:
            store.delete(f"{FOLDER}/{folder}")


def _name(round_: int, file: str) -> str:
    return f"{FOLDER}/round-{round_:06d}/{file}"
