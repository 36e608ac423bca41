"""Find the round from which a run goes on: the newest one whose files, and all before them, are whole."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from shoal.cluster import checkpoints, ledger
from shoal.cluster.storage import BrokenFile, Store
from shoal.policies import population
from shoal.policies.parts import archived_within
from shoal.policies.population import PopulationState
from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.messages import Row
from shoal.search.records import tables
from shoal.search.records.last import rows_at
from shoal.search.records.lineage import read_lineage

NO_ROWS: Mapping[int, Row] = {}
NOTHING: Mapping[str, Any] = {}


class WholeRound(NamedTuple):
    """A round as the checkpoint and the tables have it; round 0 is a run's beginning."""

    round: int
    state: PopulationState
    last: Mapping[int, Row] = NO_ROWS  # member -> its row of its last round
    exploits: int = 0
    read_out: Sequence[str] = ()  # groups whose rows have ended
    arrived: int = 0  # reports decided so far; only where members wait for nobody
    ended: Sequence[int] = ()  # members that train no more; only there
    stopping: Mapping[str, Any] = NOTHING  # as far as `stop:` has come


def newest_whole(run: Run, store: Store, say: Callable[[str], None]) -> WholeRound | None:
    """Return the newest round whose files are all there and unbroken; None if no round was finished.

    `say` hears of a broken file, and the round before is taken. Raises InputError if no round is left.
    Nothing is deleted.
    """
    rounds = [each for each in checkpoints.saved_rounds(store) if checkpoints.has_decisions(store, each)]
    lost: list[str] = []
    for round_ in rounds:
        try:
            if gone := checkpoints.missing(store, round_, range(run.population.members), run.shares):
                # members write after the decision, so a killed run may leave its newest round incomplete
                lost += [] if round_ == rounds[0] else [f"{store.path(gone[0])} is missing"]
                continue
            found = read_whole(run, store, round_)
        except BrokenFile as error:
            lost.append(str(error))
            continue
        if lost:
            say(f"{lost[0]}; going on from round {round_}")
        return found
    if lost:
        raise InputError(
            f"{lost[0]}, and no other round is whole. Put it back as it was, or delete {run.directory} "
            f"to begin anew."
        )
    return None


def read_whole(run: Run, store: Store, round_: int) -> WholeRound:
    """Read all files of a round and before; raises BrokenFile for a file that is not as it was written."""
    decisions = checkpoints.load_decisions(store, round_)
    with store.guarded(checkpoints.decisions_of(round_)):
        found = WholeRound(
            round_,
            population.from_plain(decisions["members"]),
            exploits=decisions["exploits"],
            read_out=decisions.get("read_out", []),
            arrived=decisions.get("arrived", 0),
            ended=decisions.get("ended", []),
            stopping=decisions.get("stopping", {}),
        )
        state, saved = found.state, [int(each) for each in decisions["saved"]]
        earlier = {(best.decision, member) for member, best in archived_within(state, run.parts)}
    checkpoints.verify(store, [*((each, member) for member, each in enumerate(saved)), *earlier], run.shares)
    read_lineage(store, round_)
    for part in store.parts(tables.MIXING):
        if tables.round_of(part) <= round_:
            tables.read_part(store, f"{tables.MIXING}/{part}")
    for name in ledger.saved(store, round_):
        store.read_table(name)
    rows = tables.read_table_rows(store, tables.METRICS, round_) if any(saved) else []
    return found._replace(last=rows_at(store, saved, rows))
