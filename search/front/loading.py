"""A trained member as a torch module, out of its checkpoint."""

from typing import Any

from numpy.typing import NDArray

from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.members.build import build_members
from shoal.search.members.unmade import Unmade
from shoal.search.messages import Row
from shoal.search.records.directory import exported_shape
from shoal.trainables.decoder import trained_decoder
from shoal.trainables.handover import hand_in
from shoal.trainables.settings import DecoderShape


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
    member: Any = build_members(alone, {row.member: hyperparameters})[row.member]
    hand_in(member.load, state, hyperparameters)
    made = member.there() if isinstance(member, Unmade) else member
    module = getattr(made, "module", None)
    return made if module is None else module.eval()
