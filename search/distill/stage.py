"""The teacher as a stage of Ray Data: it reads a run's rows before the training, once for all workers."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from ray import train

from shoal.cluster.reading import blocks_of, look_at
from shoal.cluster.row_order import RowOrder
from shoal.cluster.rows import as_rows
from shoal.cluster.session import capacity
from shoal.cluster.storage import Store
from shoal.search.config.run import Run
from shoal.search.corpus.batches import file_rows
from shoal.search.corpus.build import load_corpus
from shoal.search.corpus.text import proportions
from shoal.search.distill.teacher import open_teacher
from shoal.trainables.distill.shared import SharedTeacher
from shoal.trainables.distill.staged import Staged, flatten

SHOWN = "what the teacher shows of {}"  # name of a group's dataset


class Look:
    """The teacher in a process of Ray Data: it adds a column with its outputs to blocks of rows."""

    def __init__(self, run: Run):
        torch.set_num_threads(1)
        self.device = "cuda" if run.cluster.gpus_per_worker else "cpu"
        self.teacher = open_teacher(run, self.device)[0]
        self.row_type = load_corpus(run.data).row_type

    def __call__(self, block: pa.Table) -> pa.Table:
        tokens = torch.from_numpy(as_rows(block, self.row_type).astype(np.int64)).to(self.device)
        lines = flatten(self.teacher.look(tokens, None))
        column = pa.FixedSizeListArray.from_arrays(pa.array(lines.reshape(-1)), lines.shape[1])
        return pa.table({"tokens": block["tokens"], "shown": column})


def stage(run: Run) -> dict[str, Any]:
    """Run the stage on the connected Ray; return a dataset for each group, kept in Ray's object store."""
    manifest, store = load_corpus(run.data), Store(run.data.corpus)
    gpus, has = run.cluster.gpus_per_worker, capacity()
    processes = max(1, int(has.get("GPU", 0.0) / gpus if gpus else has.get("CPU", 1.0)))
    groups, found = list(manifest.groups), {}
    for group, share in zip(groups, proportions(run, groups), strict=True):
        split = manifest.groups[group].splits["train"]
        order = RowOrder(group, file_rows(split), run.seed)
        rows = min(order.rows, math.ceil(run.training.steps * run.training.batch * share) + 1)
        if share:
            chosen, given = picks(split.files, order, rows), (run,)
            # the tasks that read the rows need a part of a CPU too
            found[SHOWN.format(group)] = look_at(store, chosen, Look, given, processes, 0.75, gpus)
    return found


def picks(files: list[str], order: RowOrder, rows: int) -> list[tuple[str, list[int]]]:
    """Return the first `rows` rows of the order, as pairs of a file and the numbers of its rows."""
    found, turn = [], 0
    while rows > 0:
        chosen = order.shuffled(turn)[:rows].tolist()
        found.append((files[order.file(turn)], chosen))
        rows, turn = rows - len(chosen), turn + 1
    return found


def read_staged(run: Run, teacher: SharedTeacher, device: str) -> Staged:
    """Return the stage's outputs; called on a Ray Train worker, in whose node's memory the blocks stay."""
    one = torch.zeros((1, run.data.sequence_length), dtype=torch.long, device=device)
    found = Staged([part.shape[-1] for part in teacher.look(one, None).tensors])
    manifest = load_corpus(run.data)
    groups = list(manifest.groups)
    for group, share in zip(groups, proportions(run, groups), strict=True):
        blocks = blocks_of(train.get_dataset_shard(SHOWN.format(group))) if share else ()
        for part in (part for block in blocks for part in block.to_batches()):
            found.add(as_rows(part, manifest.row_type), column_of(part, "shown"))
    return found


def column_of(part: pa.RecordBatch, name: str) -> NDArray[Any]:
    """Return a column of lists as `(rows, numbers)`, without a copy."""
    flat: NDArray[Any] = part[name].flatten().to_numpy(zero_copy_only=True)
    return flat.reshape(len(part), -1)
