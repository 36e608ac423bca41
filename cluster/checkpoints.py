"""Checkpoints of a population: one file a member and one for the decisions, each written whole.

A checkpoint counts only when all of its files are there, so no commit step is needed and a run can
die between any two writes. The decisions say under which of its own rounds each member's file lies;
where members keep step with one another it is the round of the checkpoint.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from shoal.cluster import nests
from shoal.cluster.storage import TEMPORARY, BrokenFile, Store

Part = tuple[int, int]  # (number of this file, number of files) where a member's state lies in several
WHOLE: Part = (0, 1)
CHECKPOINT_FOLDER, DECISIONS = "checkpoints", "decisions.json"
ROUND = re.compile(r"round-(\d{6,})")
CHECKPOINT_FILE = re.compile(r"decisions\.json|member-\d{5,}(-part-\d{4,}-of-\d{4,})?\.safetensors")
READERS = 4  # threads that verify files side by side


class Writer:
    """Saves members beside the training that goes on: `save` returns at once, `wait` when all is written."""

    def __init__(self, store: Store):
        self.store = store
        self.thread = ThreadPoolExecutor(1)
        self.writing: list[Future[None]] = []

    def save(self, round_: int, member: int, state: Any, part: Part = WHOLE) -> None:
        """Begin to write a state, which must be a copy that nobody changes any more."""
        self.writing.append(self.thread.submit(save_member, self.store, round_, member, state, part))

    def save_now(self, round_: int, member: int, state: Any, part: Part = WHOLE) -> None:
        """Write a state that is no copy, before anybody changes it; raises what a write raises."""
        self.wait()
        save_member(self.store, round_, member, state, part)

    def wait(self) -> None:
        """Wait until all is written; raises what a write raised."""
        for future in self.writing:
            future.result()
        self.writing.clear()


def save_member(store: Store, round_: int, member: int, state: Any, part: Part = WHOLE) -> None:
    store.write_pieces(_member(round_, member, part), nests.in_pieces(state))


def load_member(store: Store, round_: int, member: int, part: Part = WHOLE) -> Any:
    """Return a member's state; raises BrokenFile if its file does not hold what was written."""
    name = _member(round_, member, part)
    with store.guarded(name):
        return nests.loads(store.read(name))


def save_decisions(store: Store, round_: int, decisions: dict[str, Any], saved: Sequence[int]) -> None:
    """Save the decisions, and under which round each member's own file lies; 0 is a member's start."""
    plain = {"saved": list(saved), **decisions}
    store.write_json(_name(round_, DECISIONS), {**plain, "digest": _digest(plain)})


def load_decisions(store: Store, round_: int) -> Any:
    """Return the decisions of a round; raises BrokenFile if they are not what was written."""
    name = _name(round_, DECISIONS)
    plain = store.read_json(name, "saved")
    if plain.pop("digest", None) not in (None, _digest(plain)):
        raise BrokenFile(store.path(name), "its content is not what was written")
    return plain


def _digest(plain: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(plain).encode(), digest_size=16).hexdigest()


def latest(store: Store, members: Iterable[int], parts: int = 1) -> int | None:
    """Return the newest checkpoint of which the decisions and all these members are there, or None."""
    wanted = list(members)
    return next((each for each in saved_rounds(store) if complete(store, each, wanted, parts)), None)


def saved_rounds(store: Store) -> list[int]:
    """Return the rounds that have a folder, newest first; what else lies beside them is not ours."""
    found = [ROUND.fullmatch(folder) for folder in store.folders(CHECKPOINT_FOLDER)]
    return sorted((int(each[1]) for each in found if each), reverse=True)


def complete(store: Store, round_: int, members: Sequence[int], parts: int = 1) -> bool:
    """Say whether the decisions of a round and these members' files are there, whatever is in them."""
    return has_decisions(store, round_) and not missing(store, round_, members, parts)


def has_decisions(store: Store, round_: int) -> bool:
    return store.exists(decisions_of(round_))


def missing(store: Store, round_: int, members: Sequence[int], parts: int = 1) -> list[str]:
    """Return the names of these members' files that a decided round should have, but has not."""
    saved = load_decisions(store, round_)["saved"]
    places = {saved[member] for member in members} - {0}
    found = {_name(each, file) for each in places for file in store.names(_folder(each))}
    wanted = [_files(saved[member], member, parts) for member in members if saved[member]]
    return sorted(set().union(*wanted) - found)


def verify(store: Store, saved: Sequence[tuple[int, int]], parts: int = 1) -> None:
    """Read the files of (round, member) and keep nothing; raises BrokenFile for what was not written so."""

    def look(item: tuple[int, int, int]) -> None:
        round_, member, part = item
        try:
            load_member(store, round_, member, (part, parts))
        except FileNotFoundError as error:
            raise BrokenFile(store.path(_member(round_, member, (part, parts))), "it is missing") from error

    files = [(*each, part) for each in saved if each[0] for part in range(parts)]
    with ThreadPoolExecutor(READERS) as readers:
        for _ in readers.map(look, files):
            pass


def decisions_of(round_: int) -> str:
    """Return the name of a round's decisions in the run's directory."""
    return _name(round_, DECISIONS)


def newest_round(store: Store, member: int) -> int:
    """Return the last round under which this member's file lies, 0 if there is none."""
    return next((each for each in saved_rounds(store) if store.exists(_member(each, member))), 0)


def prune(store: Store, before: int, kept: Sequence[int] = ()) -> None:
    """Delete the checkpoints of all rounds before this one but those that are to be kept."""
    for round_ in saved_rounds(store):
        if round_ < before and round_ not in kept:
            _forget(store, round_)


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
    for each in set(saved_rounds(store)) - set(whole):
        _forget(store, each, kept)


def _forget(store: Store, round_: int, kept: Iterable[str] = ()) -> None:
    """Delete the files of a round but those to be kept, and its folder if nothing is left, also of others."""
    there = store.names(_folder(round_))
    ours = [file for file in there if _is_ours(file) and _name(round_, file) not in kept]
    if len(ours) == len(there):
        store.delete(_folder(round_))
        return
    for file in ours:
        store.delete(_name(round_, file))


def _is_ours(file: str) -> bool:
    written = TEMPORARY.fullmatch(file)
    return bool(CHECKPOINT_FILE.fullmatch(written["name"] if written else file))


def _folder(round_: int) -> str:
    return f"{CHECKPOINT_FOLDER}/round-{round_:06d}"


def _name(round_: int, file: str) -> str:
    return f"{_folder(round_)}/{file}"


def _member(round_: int, member: int, part: Part = WHOLE) -> str:
    place, parts = part
    suffix = "" if parts == 1 else f"-part-{place:04d}-of-{parts:04d}"
    return _name(round_, f"member-{member:05d}{suffix}.safetensors")


def _files(round_: int, member: int, parts: int) -> set[str]:
    return {_member(round_, member, (part, parts)) for part in range(parts)}
