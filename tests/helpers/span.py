"""Members over two processes, on gloo: run by tests/whole/test_span.py, a process a rank."""

import json
import os
import sys
from typing import Any

import numpy as np
import torch
from torch import distributed as dist
from torch.distributed.tensor import DTensor

from shoal.policies.sampling.dynamic import LinUpper
from shoal.policies.sampling.infobatch import InfoBatch
from shoal.policies.sampling.interface import Rule
from shoal.search.members.mixed import Mixed
from shoal.search.members.sampled import sample_arrays
from shoal.trainables.arrays import to_tensors
from shoal.trainables.batches import Shuffled
from shoal.trainables.member import SavedState
from shoal.trainables.span import local, open_span
from tests.helpers.members import gated, language, supernet
from tests.helpers.pretrained import tiny_llama
from tests.search.members.test_policies_in_members import EXAMPLES
from tests.search.members.test_policies_in_members import member as member_of
from tests.trainables.objectives.test_embedder import embedder
from tests.trainables.pretrained.test_hidden_causal import member as hiding


def experts(spread: bool, sharded: bool) -> dict[str, list[float]]:
    """Train a decoder with experts, let another one copy it, and judge both."""
    first, second = gated(1), gated(2)
    if spread:
        span = open_span(2, sharded, "cpu")
        for member in (first, second):
            member.spread(span)
    said = [first.train(3), second.train(2)]
    second.load(first.state(), {"gate_end": 0.2, "gate_balance": 0.3})
    said += [first.train(4), second.train(4)]
    return {"losses": said, "scores": [first.evaluate()[0], second.evaluate()[0]]}


def losses(sharded: bool) -> dict[str, list[float] | list[list[int]]]:
    """Train, hand over to another member, and train both on; return what there is to compare."""
    span = open_span(2, sharded, "cpu")
    first, second = language(1, learning_rate=0.01), language(2, learning_rate=0.02)
    for member in (first, second):
        member.spread(span)
    said = [first.train(3), second.train(2)]
    state: SavedState = first.state()
    second.load(state, {"learning_rate": 0.01})
    said += [first.train(4), second.train(4)]
    scores = [first.evaluate()[0], second.evaluate()[0]]
    return {
        "losses": said,
        "scores": scores,
        "shapes": [list(each.shape) for each in state["weights"].values()],
    }


def thin(spread: bool, sharded: bool) -> dict[str, Any]:
    """Train members of which a share of the weights is there, and copy from a denser one to a sparser one."""
    donor, receiver = language(1, density=0.5), language(2, density=0.3)
    if spread:
        span = open_span(2, sharded, "cpu")
        for member in (donor, receiver):
            member.spread(span)
    said = [donor.train(3), receiver.train(2)]
    receiver.load(donor.state(), {"density": 0.3})
    said += [receiver.train(4)]
    there = sum(int((local(layer.weight) != 0).sum()) for layer in receiver.applied.masked.values())
    count = torch.tensor(there)
    if spread and sharded:
        dist.all_reduce(count)
    return {"losses": said, "score": receiver.evaluate()[0], "there": int(count)}


def hidden(spread: bool, sharded: bool) -> dict[str, Any]:
    """Train a whole causal model on hidden tokens; return its scores and its losses."""
    member = hiding(1, adapter=None)
    if spread:
        member.spread(open_span(2, sharded, "cpu"))
    begun = member.evaluate()[0]
    return {"losses": [member.train(3)], "scores": [begun, member.evaluate()[0]]}


def mixed(sharded: bool) -> dict[str, Any]:
    """Train members that mix, one by validation losses and one by training losses; return what they came to."""
    span, told = open_span(2, sharded, "cpu"), {}
    for name in ("aioli", "ado"):
        member = mixing(name)
        member.spread(span)
        told[name] = outcome(member)
    return told


def mixing(name: str) -> Mixed:
    return member_of(EXAMPLES[name], seed=3)


def outcome(member: Mixed) -> dict[str, Any]:
    losses = [member.train(steps) for steps in (5, 7, 9)]
    groups = member.account().groups
    return {
        "losses": losses,
        "seen": [group.seen for group in groups],
        "shares": [group.proportion for group in groups],
        "last": np.asarray(member.mixing_state["policy"].get("last", [0.0])).tolist(),
    }


def sampled(rule: Rule, spread: bool, sharded: bool) -> dict[str, Any]:
    """Train a member under a sampling policy, over all processes or alone; return what there is to compare."""
    member = language(1, learning_rate=0.01)
    rows = np.random.default_rng(0).integers(0, 31, (48, 12)) % np.arange(2, 50)[:, None]
    member.batches = sample_arrays(Shuffled(rows.astype(np.uint16), batch=8, seed=1), rule, seed=1, batches=400)
    if spread:
        member.spread(open_span(2, sharded, "cpu"))
    said = [member.train(10) for _ in range(4)]
    (pool,) = member.batches.pools
    kept, losses = pool.keep.tolist(), np.nan_to_num(pool.view.losses()).tolist()
    return {"losses": said, "kept": kept, "last": losses, "score": member.evaluate()[0]}


RULES = {"lin_upper": LinUpper(0.4), "infobatch": InfoBatch(0.5)}


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


EMBEDDERS = ("contrastive", "guided", "star", "hard_negatives", "teacher_scores", "individual_temperatures")


def embedded(kind: str, spread: bool, sharded: bool) -> dict[str, Any]:
    """Return the gradients of an embedder's first batch, and what training on comes to."""
    member, chosen = embedder(kind), {}
    if spread:
        member.spread(open_span(2, sharded, "cpu"))
    member.module.train()
    batch = member.batches.next()
    loss, _ = member.backward(to_tensors(member.span.part(batch) if member.span else batch, member.device))
    for name, weight in member.weights().items():
        gradient = weight.grad
        chosen[name] = (gradient.full_tensor() if isinstance(gradient, DTensor) else gradient).tolist()
    first = member.span.mean(loss) if member.span else loss
    losses = [first.item(), member.train(3), member.train(4)]
    memory = {name: each.tolist() for name, each in member.module["memory"].named_buffers()}
    return {"losses": losses, "gradients": chosen, "memory": memory, "score": member.evaluate()[0]}


def main() -> None:
    torch.set_num_threads(1)
    tiny_llama()  # once processes have met, transformers writes in the first one alone
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=int(sys.argv[2]), world_size=2)
    told: dict[str, Any] = {
        kind: losses(kind == "fsdp")
        | {"mixed": mixed(kind == "fsdp"), "thin": thin(True, kind == "fsdp")}
        | {"hidden": hidden(True, kind == "fsdp")}
        | {"experts": experts(True, kind == "fsdp")}
        for kind in ("ddp", "fsdp")
    }
    told["sampled"] = {
        kind: {name: sampled(rule, True, kind == "fsdp") for name, rule in RULES.items()}
        for kind in ("ddp", "fsdp")
    }
    told["embedder"] = {
        kind: {name: embedded(name, True, kind == "fsdp") for name in EMBEDDERS} for kind in ("ddp", "fsdp")
    }
    told["distill"] = distilled()
    if os.environ.get("SAY"):
        print(json.dumps(told))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
