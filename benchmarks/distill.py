"""Students picked from super-networks beside the same shapes trained one by one: accuracy and compute.

The teacher is MiniLM-L6-H384. Three small sub-spaces have a super-network each and one large space has one
with as many steps as they have together; all learn from the same sentences, without labels. For each budget
the search picks a student; it is fine-tuned on SST-2 as it is, (b) from scratch, (c) after its own distillation
of as many steps, and (d) cut out of the teacher without distillation. Compute is counted in multiplications
and additions from the shapes: a backward pass costs twice a forward one. The last line is one JSON object.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.finetune import fine_tuned
from benchmarks.sentences import LENGTH, Sentences, installed, minilm, sentiment
from policies.pareto import choose
from trainables.batches import Shuffled
from trainables.distill.cost import encoder_cost
from trainables.distill.elastic import extract
from trainables.distill.encoder import Encoder
from trainables.distill.shared import SharedTeacher
from trainables.distill.spaces import Subnet, SubSpace
from trainables.distill.supernet import DistillRecipe, Relation, SuperNetwork
from trainables.distill.teachers import load_teacher
from trainables.pieces import Pieces

MINILM = {"layers": 6, "head_width": 32}
SPACES = {
    "tiny": SubSpace((2, 3), (2, 3), (64, 96), (2.0, 3.0), **MINILM),
    "small": SubSpace((3, 4), (3, 4), (96, 128), (2.0, 3.0), **MINILM),
    "base": SubSpace((3, 4), (5, 6), (160, 192), (2.0, 3.0), **MINILM),
}
LARGE = SubSpace((2, 3, 4), (2, 3, 4, 5, 6), (64, 96, 128, 160, 192), (2.0, 3.0), **MINILM)
BATCH = 32


@dataclass(frozen=True)
class Setting:
    steps: int  # of each sub-space, and of each student that is distilled by itself
    rate: float
    tuning: int  # labelled sentences of a fine-tuning
    epochs: int


class Family:
    """The teacher, the text, and everything that is trained on them."""

    def __init__(self, data: str, setting: Setting, seed: int):
        folder = minilm()
        teacher, origin = load_teacher(folder)
        assert isinstance(origin, Encoder)
        pieces = Pieces(folder)
        self.setting, self.seed, self.origin = setting, seed, origin
        self.train = sentiment(data, "train", pieces)
        tests = [sentiment(data, split, pieces) for split in ("dev", "test")]
        self.test = Sentences(*(np.concatenate(parts) for parts in zip(*tests, strict=True)))
        docs = installed(len(self.train.tokens) + 256, pieces)
        both = [np.concatenate((a[:-256], b)) for a, b in zip(docs, self.train, strict=True)]
        self.text = Sentences(*both)
        self.held_out = {
            "validation": {
                "docs": (docs.tokens[-256:], docs.mask[-256:]),
                "reviews": (self.test.tokens[:256], self.test.mask[:256]),
            }
        }
        self.shared = SharedTeacher(teacher, megabytes=3000)
        self.seconds: dict[str, float] = {}

    def distil(self, name: str, space: SubSpace, steps: int) -> SuperNetwork:
        """Train a super-network; all see the same batches."""
        recipe = DistillRecipe(
            steps=steps, warmup=steps // 10, learning_rate=self.setting.rate, weight_decay=0.01
        )
        rows = Shuffled((self.text.tokens, self.text.mask), BATCH, self.seed)
        began = time.perf_counter()
        member = SuperNetwork(
            space, self.origin, self.shared, Relation(), recipe, {}, rows, self.held_out, self.seed
        )
        before = -member.evaluate()[0]
        member.train(steps)
        self.seconds[name] = time.perf_counter() - began
        print(
            f"{name}: loss {before:.4f} to {-member.evaluate()[0]:.4f} in {self.seconds[name]:.0f} s",
            flush=True,
        )
        return member

    def macs(self, subnet: Subnet) -> int:
        return encoder_cost(self.origin.shape.cut(subnet), LENGTH).macs

    def parameters(self, subnet: Subnet) -> int:
        return encoder_cost(self.origin.shape.cut(subnet), LENGTH).parameters

    def tune(self, network: Encoder) -> float:
        chosen = Sentences(*(part[: self.setting.tuning] for part in self.train))
        return fine_tuned(network, chosen, self.test, self.setting.epochs, self.seed)

    def super_macs(self, space: SubSpace, steps: int) -> float:
        """Return what the students cost in a super-network's training, for a row of each batch."""
        drawn = np.mean([self.macs(subnet) for subnet in space])
        return 3.0 * steps * (self.macs(space.largest) + self.macs(space.smallest) + 2 * drawn)

    def teacher_macs(self, steps: int) -> float:
        return float(steps * encoder_cost(self.origin.shape, LENGTH).macs)


def single(subnet: Subnet, ratio: float) -> SubSpace:
    """Return the space of one network."""
    return SubSpace((len(subnet.layers),), (subnet.heads,), (subnet.width,), (ratio,), **MINILM)


def picked(family: Family, nets: dict[str, SuperNetwork], budgets: Sequence[float]) -> list[dict[str, Any]]:
    """Score every sub-network with the shared weights and pick the best within each budget of MACs."""
    rows = []
    for name, member in nets.items():
        subnets = list(member.space)
        for subnet, loss in zip(subnets, member.losses(subnets), strict=True):
            rows.append({"space": name, "subnet": subnet, "loss": loss, "macs": family.macs(subnet)})
    scores, costs = [-row["loss"] for row in rows], [row["macs"] for row in rows]
    return [rows[choose(scores, costs, budget)] | {"budget": budget} for budget in budgets]


def spread(space: SubSpace, seed: int) -> list[Subnet]:
    """Return four different networks of a space: its ends and two drawn ones."""
    rng, found = np.random.default_rng(seed), [space.smallest, space.largest]
    while len(found) < 4:
        drawn = space.draw(rng)
        found += [drawn] if drawn not in found else []
    return found


def compare(family: Family, nets: dict[str, SuperNetwork], pick: dict[str, Any]) -> dict[str, Any]:
    """Fine-tune a picked student and the same shape got in the three other ways."""
    subnet: Subnet = pick["subnet"]
    ratio = next(r for r in nets[pick["space"]].space.ratios if int(subnet.width * r) == subnet.inner)
    own = family.distil(f"own {pick['budget']:.3g}", single(subnet, ratio), family.setting.steps)
    torch.manual_seed(family.seed)
    scratch = Encoder(family.origin.shape.cut(subnet))
    for weight in scratch.parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, 0.0, 0.02)
    row = {
        "space": pick["space"],
        "depth": len(subnet.layers),
        "heads": subnet.heads,
        "width": subnet.width,
        "inner": subnet.inner,
        "parameters": family.parameters(subnet),
        "macs": pick["macs"],
        "loss": round(pick["loss"], 4),
        "loss_individual": round(-own.evaluate()[0], 4),
        "searched": family.tune(extract(nets[pick["space"]].module, subnet)),
        "scratch": family.tune(scratch),
        "individual": family.tune(extract(own.module, subnet)),
        "truncated": family.tune(extract(family.origin, subnet)),
    }
    print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    return row


def correlation(family: Family, nets: dict[str, SuperNetwork], seed: int) -> dict[str, Any]:
    """Compare scores with shared weights to accuracies of the networks cut out and fine-tuned, over 12."""
    losses, accuracies = [], []
    for name, member in nets.items():
        for subnet, loss in zip(
            spread(member.space, seed), member.losses(spread(member.space, seed)), strict=True
        ):
            losses.append(loss)
            accuracies.append(family.tune(extract(member.module, subnet)))
            print(
                f"{name} {family.macs(subnet) / 1e6:.1f} M: loss {loss:.4f}, tuned {accuracies[-1]:.4f}",
                flush=True,
            )
    within = [
        float(spearmanr([-x for x in losses[i : i + 4]], accuracies[i : i + 4]).statistic) for i in (0, 4, 8)
    ]
    rank = float(spearmanr([-loss for loss in losses], accuracies).statistic)
    return {"rank_correlation": round(rank, 3), "rank_correlation_within": [round(x, 3) for x in within]}


def compute(family: Family, students: Sequence[dict[str, Any]], steps: int) -> dict[str, float]:
    """Return what the super-networks cost over one run a student, in MACs and in seconds."""
    networks = sum(family.super_macs(space, steps) for space in SPACES.values())
    alone = sum(3.0 * steps * row["macs"] for row in students)
    teacher = family.teacher_macs(steps)
    every = len(students) * teacher
    owns = [seconds for name, seconds in family.seconds.items() if name.startswith("own")]
    return {
        # a brood asks the teacher once for all its super-networks; separate runs ask it once each
        "compute_over_individual": round((networks + teacher) / (alone + every), 3),
        "compute_over_individual_teacher_free": round(networks / alone, 3),
        "compute_over_individual_each_with_teacher": round((networks + 3 * teacher) / (alone + every), 3),
        "seconds_super": round(sum(family.seconds[name] for name in SPACES), 1),
        "seconds_individual": round(sum(owns), 1),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distill", description=__doc__)
    parser.add_argument("--sst2", default="../shared/data/sst2", help="folder of train.tsv, dev.tsv, test.tsv")
    parser.add_argument("--steps", type=int, default=120, help="of each sub-space; the large one has thrice")
    parser.add_argument("--tuning", type=int, default=2000, help="labelled sentences of a fine-tuning")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budgets", type=int, default=4)
    parser.add_argument("--full", action="store_true", help="2,000 steps, all labels, 3 epochs, 8 budgets")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    began = time.perf_counter()
    setting = Setting(arguments.steps, arguments.rate, arguments.tuning, 2)
    if arguments.full:
        setting = Setting(2000, arguments.rate, 6920, 3)
    family = Family(arguments.sst2, setting, arguments.seed)
    nets = {name: family.distil(name, space, setting.steps) for name, space in SPACES.items()}
    large = family.distil("large", LARGE, 3 * setting.steps)
    ends = [family.macs(subnet) for subnet in (SPACES["tiny"].smallest, SPACES["base"].largest)]
    budgets = np.geomspace(1.2 * ends[0], ends[1], 8 if arguments.full else arguments.budgets)
    students = [compare(family, nets, pick) for pick in picked(family, nets, budgets.tolist())]
    ranks = correlation(family, nets, arguments.seed)
    largest = {
        name: {
            "sub_space": round(member.losses([member.space.largest])[0], 4),
            "large": round(large.losses([member.space.largest])[0], 4),
        }
        for name, member in nets.items()
    }
    gaps = [row["individual"] - row["searched"] for row in students]
    result = {
        **ranks,
        "points_below_individual": round(100 * float(np.mean(gaps)), 2),
        "points_below_individual_worst": round(100 * max(gaps), 2),
        **compute(family, students, setting.steps),
        "loss_of_largest": largest,
        "teacher": round(family.tune(extract(family.origin, family.origin.shape.whole)), 4),
        "steps": setting.steps,
        "seconds": round(time.perf_counter() - began),
        "students": students,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
