"""One process of the benchmark of adapters: it trains as it is told and prints the memory that it took.

`python -m benchmarks.parts.adapter_worker KIND FOLDER MEMBERS ROWS LENGTH CHECKPOINTED`; KIND is stack, peft or
full, and CHECKPOINTED is 1 where layers are computed again in the backward pass.
"""

import json
import mmap
import pickle
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.parts import smollm
from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from shoal.search.worker.brood import save, snapshot
from shoal.trainables.batches import Shuffled
from shoal.trainables.handover import hand_in
from shoal.trainables.pretrained.causal import CausalModel, recompute
from shoal.trainables.pretrained.settings import LowRank, Pretrained
from shoal.trainables.settings import Recipe
from shoal.trainables.stack import Stack

ADAPTER = LowRank(rank=8, alpha=16.0)
MEMBERS, ROWS, LENGTH = 8, 2, 128  # of the comparisons; a member trains on so many rows a step
STEPS = 3
STATUS = ("VmHWM", "RssAnon", "RssFile", "RssShmem")


def status() -> dict[str, int]:
    """Return bytes of this process: the most that were resident, and what is resident now by kind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    known = {name: words.split() for name, _, words in (line.partition(":") for line in lines)}
    return {name: int(known[name][0]) * 1024 for name in STATUS}


class Peak(threading.Thread):
    """Samples what is resident until told to stop: the most memory of this process's own, and of files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = dict.fromkeys(STATUS, 0)
        self.over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.01):
            now = status()
            now["without_store"] = now["RssAnon"] + now["RssFile"]
            self.most = {name: max(now[name], self.most.get(name, 0)) for name in now}


def chance(rows: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 40000, (rows, length)).astype(np.uint16)


def member(
    folder: str,
    seed: int,
    rows: int,
    length: int,
    adapter: LowRank | None = ADAPTER,
    checkpointed: bool = False,
    device: str = "cpu",
    **recipe: Any,
) -> CausalModel:
    """Return a member that trains on rows of chance, `rows` in a batch."""
    made = Recipe(**{"steps": 1000, "warmup": 2, "learning_rate": 1e-4} | recipe)
    batches = Shuffled(chance(8 * rows, length, seed), rows, seed)
    held_out = {"validation": {"chance": chance(2, length)}}
    given = Pretrained(folder, adapter, gradient_checkpointing=checkpointed)
    return CausalModel(made, {}, batches, held_out, seed, device, pretrained=given)


def train_stack(folder: str, members: int, rows: int, length: int, checkpointed: int) -> None:
    made = [member(folder, seed, rows, length, checkpointed=bool(checkpointed)) for seed in range(members)]
    stack = Stack(made)
    stack.train(STEPS)
    stack.evaluate()


def peft_model(folder: str) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    config = LoraConfig(r=ADAPTER.rank, lora_alpha=ADAPTER.alpha, target_modules=list(ADAPTER.targets))
    return get_peft_model(base, config)


def plain_step(model: Any, optimiser: torch.optim.Optimizer, tokens: torch.Tensor) -> float:
    """Train a model of transformers on a batch, as its users write it."""
    loss = model(input_ids=tokens, labels=tokens).loss
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([each for each in model.parameters() if each.requires_grad], 1.0)
    optimiser.step()
    return loss.item()  # type: ignore[no-any-return]


def train_peft(folder: str, members: int, rows: int, length: int, checkpointed: int) -> None:
    model = peft_model(folder).train()
    if checkpointed:
        recompute(model.get_base_model())
    optimiser = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-4)
    for step in range(STEPS):
        plain_step(model, optimiser, torch.from_numpy(chance(rows, length, step).astype(np.int64)))


def train_full(folder: str, members: int, rows: int, length: int, checkpointed: int) -> None:
    """Train all weights; meanwhile hand them out, take others in, and write two checkpoints."""
    one = member(folder, 0, rows, length, adapter=None, checkpointed=bool(checkpointed))
    with tempfile.TemporaryDirectory() as place:
        store = Store(place)
        writer = checkpoints.Writer(store)
        for round_ in (1, 2):
            one.train(STEPS)
            with handed_over(partial(snapshot, one, direct=False, still=True)) as other:
                hand_in(one.load, other, {})
            save(writer, round_, 0, one, checkpoints.WHOLE)
            one.train(STEPS)
        writer.wait()


@contextmanager
def handed_over(give: Callable[[], Any]) -> Iterator[Any]:
    """Yield a state as another process gets it: its arrays lie in shared memory, as in Ray's store."""
    buffers: list[pickle.PickleBuffer] = []
    whole = pickle.dumps(give(), protocol=5, buffer_callback=buffers.append)
    ends = np.cumsum([0, *(buffer.raw().nbytes for buffer in buffers)])
    with tempfile.TemporaryFile(dir="/dev/shm") as store:
        while buffers:
            store.write(buffers.pop(0).raw())
        store.flush()
        view = memoryview(mmap.mmap(store.fileno(), 0, access=mmap.ACCESS_READ))
        yield pickle.loads(whole, buffers=[view[begin:end] for begin, end in pairwise(ends)])


KINDS = {"stack": train_stack, "peft": train_peft, "full": train_full}


def main() -> None:
    kind, folder, *numbers = sys.argv[1:]
    import transformers  # noqa: F401

    start, peak, began = status(), Peak(), time.perf_counter()
    KINDS[kind](smollm.folder(folder), *map(int, numbers))
    peak.over.set()
    names = {"own": "RssAnon", "files": "RssFile", "without_store": "without_store"}
    found = {"peak": status()["VmHWM"]} | {name: peak.most[key] for name, key in names.items()}
    print(json.dumps(found | {"start": start["VmHWM"], "seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
