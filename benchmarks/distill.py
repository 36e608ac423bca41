"""Students picked from super-networks beside the same shapes trained one by one: accuracy and compute.

The teacher is MiniLM-L6-H384. Three small sub-spaces have a super-network each and one large space has one
with as many steps as they have together; all learn from the same sentences, without labels. For each budget
the search picks a student; it is fine-tuned on SST-2 (a) as it is, (b) from scratch, (c) after its own
distillation of as many steps, and (d) cut out of the teacher without distillation. Compute is counted in
multiplications and additions from the shapes: a backward pass costs twice a forward one. The last line is one
JSON object.
"""

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.parts.minilm import LARGE, SPACES, Family, Setting
from shoal.policies.pareto import choose
from shoal.trainables.distill.elastic import extract
from shoal.trainables.distill.spaces import Subnet, SubSpace
from shoal.trainables.distill.supernet import SuperNetwork

DEFAULT = Setting(steps=110, rate=1e-3, labels=6920, epochs=1, seeds=2, budgets=4)
FULL = Setting(steps=2000, rate=1e-3, labels=6920, epochs=3, seeds=3, budgets=8)
SEEDS = {"scratch": 1, "truncated": 1}  # these two are not compared to a point

Nets = dict[str, SuperNetwork]
Scored = list[dict[str, Any]]


def scored(family: Family, nets: Nets, large: SuperNetwork) -> Scored:
    """Score every sub-network with the weights of its sub-space, and with those of the large space."""
    rows = []
    for name, member in nets.items():
        subnets = list(member.space)
        pairs = zip(member.losses(subnets), large.losses(subnets), strict=True)
        for subnet, (loss, apart) in zip(subnets, pairs, strict=True):
            rows.append(
                {"space": name, "subnet": subnet, "loss": loss, "large": apart, "macs": family.macs(subnet)}
            )
    return rows


def spread(space: SubSpace, seed: int) -> list[Subnet]:
    """Return four different networks of a space: its ends and two drawn ones."""
    rng, found = np.random.default_rng(seed), [space.smallest, space.largest]
    while len(found) < 4:
        drawn = space.draw(rng)
        found += [drawn] if drawn not in found else []
    return found


def correlation(family: Family, nets: Nets, rows: Scored) -> dict[str, Any]:
    """Compare scores with shared weights to accuracies of the networks cut out and fine-tuned, over 12."""
    losses, accuracies = [], []
    known = {(row["space"], row["subnet"]): row["loss"] for row in rows}
    for name, member in nets.items():
        for subnet in spread(member.space, family.seed):
            losses.append(known[name, subnet])
            accuracies.append(family.tuned(extract(member.transformer, subnet)))
            macs = family.macs(subnet) / 1e6
            print(f"{name} {macs:.1f} M: loss {losses[-1]:.4f}, tuned {accuracies[-1]}", flush=True)
    means = [float(np.mean(each)) for each in accuracies]
    within = [rank_of(losses[i : i + 4], means[i : i + 4]) for i in (0, 4, 8)]
    # how far fine-tuning agrees with itself bounds how far anything can agree with it
    pair = np.array(accuracies)[:, :2].T
    return {
        "rank_correlation": rank_of(losses, means),
        "rank_correlation_within": within,
        "rank_correlation_of_two_seeds": rank_of((-pair[0]).tolist(), pair[-1].tolist()),
        "rank_correlation_of_macs": rank_of([-family.macs(s) for s in chosen(family, nets)], means),
        "networks": [[round(loss, 4), *each] for loss, each in zip(losses, accuracies, strict=True)],
    }


def chosen(family: Family, nets: Nets) -> list[Subnet]:
    return [subnet for member in nets.values() for subnet in spread(member.space, family.seed)]


def rank_of(losses: Sequence[float], accuracies: Sequence[float]) -> float:
    return round(float(spearmanr([-loss for loss in losses], accuracies).statistic), 3)


def picked(family: Family, rows: Scored) -> Scored:
    """Return the best network within each budget of MACs."""
    scores, costs = [-row["loss"] for row in rows], [row["macs"] for row in rows]
    budgets = np.geomspace(1.2 * min(costs), max(costs), family.setting.budgets)
    return [rows[choose(scores, costs, budget)] | {"budget": budget} for budget in budgets.tolist()]


def compare(family: Family, nets: Nets, pick: dict[str, Any]) -> dict[str, Any]:
    """Fine-tune a picked student and the same shape got in the three other ways."""
    subnet: Subnet = pick["subnet"]
    own = family.alone(f"own {pick['budget']:.3g}", subnet)
    networks = {
        "searched": extract(nets[pick["space"]].transformer, subnet),
        "scratch": family.scratch(subnet),
        "individual": extract(own.transformer, own.space.largest),
        "truncated": family.truncated(subnet),
    }
    row = {
        "space": pick["space"],
        "depth": len(subnet.layers),
        "heads": subnet.heads,
        "width": subnet.width,
        "inner": subnet.inner,
        "parameters": family.parameters(subnet),
        "macs": pick["macs"],
        "loss": round(pick["loss"], 4),
        "loss_large": round(pick["large"], 4),
        "loss_individual": round(own.losses([own.space.largest])[0], 4),
        # what is compared to a point has all seeds, the two others stand far off
        **{
            name: round(
                float(np.mean(family.tuned(network, 1 if name in ("scratch", "truncated") else None))), 4
            )
            for name, network in networks.items()
        },
    }
    print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    return row


def compute(family: Family, students: Scored, rows: Scored) -> dict[str, float]:
    """Return what the super-networks cost over one run a student, in MACs and in seconds."""
    steps = family.setting.steps
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
        "compute_over_all_networks_teacher_free": round(
            networks / sum(3.0 * steps * row["macs"] for row in rows), 3
        ),
        # the teacher's batches were all asked for by the large space's training, which came first
        "seconds_super": round(sum(family.seconds[name] for name in SPACES), 1),
        "seconds_individual": round(sum(owns), 1),
        "seconds_tuning": round(family.seconds["tuning"], 1),
    }


def spaces_beside_large(nets: Nets, rows: Scored) -> dict[str, Any]:
    """Return the losses of each sub-space's networks with its own weights, and with the large space's."""
    found = {}
    for name, member in nets.items():
        own = [row for row in rows if row["space"] == name]
        largest = next(row for row in own if row["subnet"] == member.space.largest)
        found[name] = {
            "largest": round(largest["loss"], 4),
            "largest_in_large": round(largest["large"], 4),
            "mean": round(float(np.mean([row["loss"] for row in own])), 4),
            "mean_in_large": round(float(np.mean([row["large"] for row in own])), 4),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distill", description=__doc__)
    parser.add_argument("--sst2", default="../shared/data/sst2", help="folder of train.tsv, dev.tsv, test.tsv")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--full", action="store_true", help="2,000 steps, 3 epochs and seeds, 8 budgets, the teacher"
    )
    arguments = parser.parse_args()
    began = time.perf_counter()
    family = Family(arguments.sst2, FULL if arguments.full else DEFAULT, arguments.seed)
    steps = family.setting.steps
    large = family.distil("large", LARGE, 3 * steps)
    nets = {name: family.distil(name, space, steps) for name, space in SPACES.items()}
    rows = scored(family, nets, large)
    ranks = correlation(family, nets, rows)
    students = [compare(family, nets, pick) for pick in picked(family, rows)]
    gaps = [row["individual"] - row["searched"] for row in students]
    result = {
        **ranks,
        "points_below_individual": round(100 * float(np.mean(gaps)), 2),
        "points_below_individual_worst": round(100 * max(gaps), 2),
        **compute(family, students, rows),
        "spaces": spaces_beside_large(nets, rows),
        "steps": steps,
        "seconds": round(time.perf_counter() - began),
        "students": students,
    }
    if arguments.full:
        result["teacher"] = family.tuned(family.truncated(family.origin.shape.whole))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
