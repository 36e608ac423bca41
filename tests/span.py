"""Members over two processes, on gloo: run by tests/test_span.py, a process a rank."""

import json
import os
import sys

import torch
from torch import distributed as dist

from tests.members import language, supernet
from trainables.member import State
from trainables.span import open_span


def losses(sharded: bool) -> dict[str, list[float] | list[list[int]]]:
    """Train, hand over to another member, and train both on; return what there is to compare."""
    span = open_span(2, sharded, "cpu")
    first, second = language(1, learning_rate=0.01), language(2, learning_rate=0.02)
    for member in (first, second):
        member.spread(span)
    said = [first.train(3), second.train(2)]
    state: State = first.state()
    second.load(state, {"learning_rate": 0.01})
    said += [first.train(4), second.train(4)]
    scores = [first.evaluate()[0], second.evaluate()[0]]
    return {
        "losses": said,
        "scores": scores,
        "shapes": [list(each.shape) for each in state["weights"].values()],
    }


def distilled() -> dict[str, list]:
    """Train a super-network over both processes; return its losses and each process's sub-networks."""
    member = supernet(1, learning_rate=0.01)
    member.spread(open_span(2, False, "cpu"))
    drawn, forward = [], member.module.forward

    def spy(tokens, mask=None, subnet=None):
        drawn.append(subnet)
        return forward(tokens, mask, subnet)

    member.module.forward = spy
    losses = [member.train(3), member.train(2)]
    chosen: list[list] = [[], []]
    dist.all_gather_object(chosen, [subnet.plain() for subnet in drawn])
    return {"losses": losses, "scores": [member.evaluate()[0]], "chosen": chosen}


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=int(sys.argv[2]), world_size=2)
    told = {kind: losses(kind == "fsdp") for kind in ("ddp", "fsdp")} | {"distill": distilled()}
    if os.environ.get("SAY"):
        print(json.dumps(told))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
