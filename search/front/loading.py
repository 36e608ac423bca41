"""A trained member as a torch module, out of its checkpoint."""

from typing import Any

from numpy.typing import NDArray

from shoal.cluster import checkpoints
from shoal.cluster.row_order import RowOrder
from shoal.cluster.storage import Store
from shoal.cluster.streams import RowStream
from shoal.search.config.run import Run
from shoal.search.corpus.batches import file_rows
from shoal.search.corpus.manifest import Manifest
from shoal.search.errors import InputError
from shoal.search.members.build import build_members
from shoal.search.members.unmade import Unmade
from shoal.search.messages import Row
from shoal.search.records.directory import exported_shape
from shoal.trainables.decoder import trained_decoder
from shoal.trainables.handover import hand_in
from shoal.trainables.settings import DecoderShape


class Unread(RowStream):
    """Rows of a group that nobody reads: the member only has to know how many there are."""

    def rows_from(self, turn: int, first: int) -> Any:
        raise InputError("a member that was loaded trains no further, so no rows are read for it")


def unread(run: Run, manifest: Manifest) -> dict[str, RowStream]:
    found: dict[str, RowStream] = {}
    for name, group in manifest.groups.items():
        if name not in run.unseen:
            order = RowOrder(name, file_rows(group.splits["train"]), run.seed)
            found[name] = Unread(order, manifest.row_type)
    return found


def load_trained(
    run: Run,
    store: Store,
    row: Row,
    weights: dict[str, NDArray[Any]],
    hyperparameters: dict[str, Any],
) -> Any:
    """Return the module that these weights are of; `row` is the member's last."""
    if run.kind == "distill":
        raise InputError(
            f"{run.directory} holds super-networks; export a student and load its folder with transformers, as "
            f"`result.export(student=NAME)` does."
        )
    if run.trainable == "decoder":
        return trained_decoder(DecoderShape(**exported_shape(run)), weights, run.data.sequence_length)
    if run.shares > 1:
        raise InputError(
            f"{run.directory}: its weights lie in {run.shares} shards; take `weights`, or `export()` them."
        )
    state = checkpoints.load_member(store, row.round, row.member)
    alone = run.model_copy(update={"cluster": run.cluster.model_copy(update={"gpus_per_worker": 0.0})})
    member: Any = build_members(alone, {row.member: hyperparameters}, streams=unread)[row.member]
    hand_in(member.load, state, hyperparameters)
    made = member.there() if isinstance(member, Unmade) else member
    module = getattr(made, "module", None)
    return made if module is None else module.eval()
