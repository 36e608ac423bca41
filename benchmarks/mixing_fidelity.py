"""How true Aioli's measured effects are, and what it makes of them, in worlds whose laws are known.

No network: a fake run's losses follow a law of the mixture, so A and the best mixture are known. The last
line is one JSON object.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.parts.worlds import Linear, Noisy, Saturating, World, live, measured, toy_world
from shoal.policies.arrays import Vector
from shoal.policies.mixers.aioli import Aioli
from shoal.policies.mixers.effects import agreement, by_chance, pull_spread, similarity, smoothed_one_hot
from shoal.policies.mixers.mixer import Groups, Measurement, MixerState, Visit
from shoal.policies.mixers.plain import Stratified
from shoal.policies.mixers.visits import BoundedMixing

RATES = (0.1, 0.2, 0.5, 1.0, 2.0)
TOY = Aioli(every=200, probe_share=0.24, sweeps=4, smoothing=0.75, noise=0.0)  # probes of 4 steps
TOY_STEPS = 4000


def groups_of(count: int, steps: int, batch: int) -> Groups:
    return Groups(tuple(f"group{place}" for place in range(count)), (10_000_000,) * count, batch, steps)


def end(policy: Any, groups: Groups, world: World, seed: int = 0) -> MixerState:
    return list(live(BoundedMixing(policy), groups, world, seed))[-1]


def recovered(worlds: int) -> list[dict[str, Any]]:
    """Return the worst relative error of A in exact linear worlds, with batches that cannot hold the probes.

    `requested` is what inverting the mixture that was asked for would have given, as published code does.
    """
    rows = []
    for count, batch in ((2, 8), (3, 8), (5, 8), (7, 8), (8, 4)):
        errors, naive = [], []
        for seed in range(worlds):
            rng = np.random.default_rng([seed, count])
            effects = rng.normal(0.3, 1.0, (count, count))
            policy = Aioli(every=10 * count + 10, probe_share=0.5, sweeps=1, smoothing=0.5, noise=0.0)
            groups = groups_of(count, policy.every, batch)
            world = Linear(effects, np.full(count, 9.0))
            found = end(policy, groups, world, seed)["policy"]["effects"]
            errors.append(float(np.abs(found - effects).max() / np.abs(effects).max()))
            asked = published_probes(count, batch, policy.probe_steps(groups), policy.smoothing)
            turned = effects @ asked @ np.linalg.inv(smoothed_one_hot(count, policy.smoothing))
            naive.append(float(np.abs(turned - effects).max() / np.abs(effects).max()))
        rows.append({"groups": count, "batch": batch, "realised": max(errors), "requested": max(naive)})
    return rows


def published_probes(count: int, batch: int, steps: int, smoothing: float) -> Vector:
    """Return what the published batch builder trains for each probe, (groups, groups).

    At least one row a group and batch, the last group gets what is left, and a batch in which that is
    negative has none of it.
    """
    played = np.zeros((count, count))
    for probe, wanted in enumerate(smoothed_one_hot(count, smoothing).T):
        rows = np.maximum(1, (wanted * batch).astype(int))
        rows[-1] = max(batch - rows[:-1].sum(), 0)
        played[:, probe] = rows / rows.sum()
    return played


def noisy(worlds: int) -> list[dict[str, Any]]:
    """Return how near A is to the truth, and how often 2 standard errors hold it, as the noise grows.

    Noise is of sequences, or of the rows that were trained on, which all sequences share.
    """
    rows = []
    for kind, noises in (("sequences", (0.0005, 0.002, 0.008)), ("rows", (0.0001, 0.0003, 0.001))):
        for noise in noises:
            found = [one_noisy(kind, noise, seed) for seed in range(worlds)]
            rows.append({"kind": kind, "noise": noise} | {key: mean(found, key) for key in found[0]})
    return rows


def one_noisy(kind: str, noise: float, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    effects = 0.002 * np.eye(4) + rng.normal(0.0005, 0.0005, (4, 4))
    world = disturbed(Linear(effects, np.full(4, 5.0)), kind, noise, rng)
    state = end(Aioli(every=400, probe_share=0.32), groups_of(4, 400, 64), world, seed)["policy"]
    error, signs = agreement(state["effects"], effects)
    held = np.abs(state["effects"] - effects) <= 2 * state["errors"]
    return {
        "similarity": similarity(state["effects"], effects),
        "relative_error": error,
        "right_signs": signs,
        "within_2_errors": float(held.mean()),
        "moved": float(state["decision"] == "moved"),
    }


def disturbed(world: Linear, kind: str, noise: float, rng: np.random.Generator) -> Noisy:
    return Noisy(world, 64, noise, rng) if kind == "sequences" else Noisy(world, 64, 0.0, rng, noise)


def false_moves(worlds: int) -> dict[str, float]:
    """Return how often it moves where all groups have the same effect and only noise differs.

    One sweep is refused: there it is how often an F test would move that knows the spread of sequences alone.
    """
    found = {}
    for kind in ("sequences", "rows"):
        for count in (2, 4):
            for sweeps in (1, 2, 4):
                policy = Aioli(every=200, probe_share=0.32, sweeps=sweeps, noise=2.0 if sweeps > 1 else 0.0)
                moved = 0
                for seed in range(worlds):
                    rng = np.random.default_rng([seed, count, sweeps])
                    world = disturbed(
                        Linear(np.full((count, count), 0.001), np.full(count, 5.0)), kind, 0.004, rng
                    )
                    groups = groups_of(count, 200, 64)
                    if sweeps == 1:
                        moved += blindly(policy, groups, world, seed) < math.erfc(math.sqrt(2))
                    else:
                        moved += end(policy, groups, world, seed)["policy"]["decision"] == "moved"
                found[f"{kind}, {count} groups, {sweeps} sweeps"] = moved / worlds
    return found


def blindly(policy: Aioli, groups: Groups, world: World, seed: int) -> float:
    """Return how probable the pulls of a single sweep are by chance, if all chance were in the sequences."""
    mixtures: list[Vector] = []
    seen: list[tuple[Vector, ...]] = []

    def measure(visit: Visit, world: World) -> Measurement:
        if visit.name.startswith("probe"):
            mixtures.append(visit.counts.sum(axis=0) / visit.counts.sum())
        if visit.name == "measure" or visit.name.startswith("probe"):
            seen.append(world.losses())
        return measured(visit, world)

    list(live(BoundedMixing(policy), groups, world, seed, measure=measure))
    fell = [-np.diff([losses[target] for losses in seen], axis=0) for target in range(groups.count)]
    each = np.array(
        [np.linalg.pinv(np.array(mixtures)) @ drops for drops in fell]
    )  # (targets, groups, sequences)
    each = each - each.mean(axis=1, keepdims=True)
    pull = each.mean(axis=2).sum(axis=0)
    errors = np.sqrt((each.var(axis=2, ddof=1) / each.shape[2]).sum(axis=0))
    return by_chance(pull_spread(pull, errors), groups.count, (each.shape[2] - 1) * (groups.count - 1))


def amplified(worlds: int) -> dict[str, float]:
    """Return by how much more noise A has than with one-hot probes, for each share of the probed group (f)."""
    deviations = {}
    for share in (1.0, 0.75, 0.5, 0.3, 0.25):
        entries = []
        for seed in range(worlds):
            policy = Aioli(every=210, probe_share=0.47, sweeps=4, smoothing=(1 - share) * 5 / 4)
            world = Noisy(Linear(np.zeros((5, 5)), np.full(5, 5.0)), 8, 0.01, np.random.default_rng(seed))
            entries.append(end(policy, groups_of(5, 210, 400), world, seed)["policy"]["effects"])
        deviations[str(share)] = float(np.std(np.array(entries) - np.mean(entries, axis=(1, 2), keepdims=True)))
    return {share: deviation / deviations["1.0"] for share, deviation in deviations.items()}


def overshoot(seeds: int) -> dict[str, dict[str, float]]:
    """Return the mean end loss of the toy world for each update and rate, beside the plain mixtures."""

    def ends_at(policy: Any, seed: int) -> float:
        world = toy_world()
        end(policy, groups_of(3, TOY_STEPS, 400), world, seed)
        return float(world.loss.mean())

    rows: dict[str, dict[str, float]] = {}
    for scale in ("total", "median"):
        for update in ("cumulative", "from_uniform_ema"):
            policies = {rate: replace(TOY, rate=rate, update=update, scale=scale) for rate in RATES}
            rows[f"{update}, {scale}"] = {
                str(rate): float(np.mean([ends_at(policy, seed) for seed in range(seeds)]))
                for rate, policy in policies.items()
            }
    rows["plain"] = {"stratified": ends_at(Stratified(), 0), "best static": best_static(toy_world())}
    return rows


def best_static(world: Saturating) -> float:
    grid = np.array([(i, j, 100 - i - j) for i in range(101) for j in range(101 - i)]) / 100
    ends = world.floors + (world.loss - world.floors) * (1 - grid @ world.effects.T) ** TOY_STEPS
    return float(ends.mean(axis=1).min())


def mean(found: Sequence[dict[str, float]], key: str) -> float:
    return float(np.mean([one[key] for one in found]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixing_fidelity", description=__doc__)
    parser.add_argument("--full", action="store_true", help="ten times as many worlds")
    worlds = 200 if parser.parse_args().full else 20
    results: dict[str, Any] = {"recovered": recovered(worlds)}
    print("relative error of A, exact linear worlds: as trained, and as the published batch builder trains it")
    for row in results["recovered"]:
        print(f"  {row['groups']} groups, batch {row['batch']}: {row['realised']:.1e}  {row['requested']:.2f}")
    results["noisy"] = noisy(worlds)
    print("noise, a step      sim(A, A*)  error, row-centred  right signs  within 2 errors  moved")
    for row in results["noisy"]:
        cells = [
            row[key] for key in ("similarity", "relative_error", "right_signs", "within_2_errors", "moved")
        ]
        print(f"{row['noise']:>8} {row['kind']:<10}" + "".join(f"{cell:>14.3f}" for cell in cells), flush=True)
    results["false_moves"] = false_moves(10 * worlds)
    print("moved although all groups were alike (0.046 is meant):")
    for name, share in results["false_moves"].items():
        print(f"  {name}: {share:.3f}")
    results["amplified"] = amplified(worlds)
    told = ", ".join(f"{share}: {times:.1f}" for share, times in results["amplified"].items())
    print(f"noise of A by the probed group's share, beside one-hot probes, 5 groups: {told}")
    results["overshoot"] = overshoot(2)
    for name, row in results["overshoot"].items():
        print(f"{name:>26}: " + "  ".join(f"{key} {loss:.4f}" for key, loss in row.items()), flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
