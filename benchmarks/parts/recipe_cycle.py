"""What does a V-cycle save? Time and steps to the plain decoder's loss, counted over all stages.

The plain decoder trains `STEPS`. The cycle trains it briefly, then half of its layers and width, then the whole
again from both. The last stage is trained at several lengths, each with a schedule of its own, and the length
that ends at the plain loss is read off between them: nobody knows it beforehand, so this is the best case.
`grown` leaves the first stage out. Where no length comes to the plain loss, ratios are floors: of the longest.
Time is steps times the time of a step; small and whole steps are timed in pairs, since machines are shared.
"""

import time
from typing import Any

import numpy as np

from benchmarks.parts.recipe_text import decoder
from benchmarks.quality import summary
from shoal.trainables.growth import Growth, grow_weights, mixed
from shoal.trainables.language import LanguageModel
from shoal.trainables.settings import Recipe

STEPS, WIDTH, LAYERS = 200, 64, 4
LONG_STEPS, LARGE_WIDTH = 2000, 192
RATE = 0.003
FIRST, SMALL, SHARE, NOISE = 0.1, 0.6, 0.9, 0.05  # three pairs of SMALL and SHARE were tried on seed 77
LENGTHS = (0.4, 0.7, 1.0)  # of the last stage
DOWN, UP = Growth(2, 2, False), Growth(2, 2, True)


def measure(seeds: int, full: bool) -> dict[str, Any]:
    steps, width = (LONG_STEPS, LARGE_WIDTH) if full else (STEPS, WIDTH)
    found = [cycle(seed, steps, width) for seed in range(seeds)]
    names = [name for name in found[0] if not name.endswith("reached")]
    reached = {name: sum(each[name] for each in found) for name in found[0] if name.endswith("reached")}
    return {name: summary([each[name] for each in found]) for name in names} | reached


def cycle(
    seed: int, steps: int, width: int, share: float = SHARE, small_steps: float = SMALL
) -> dict[str, Any]:
    """Return the ratios of one seed."""
    plain = trained(decoder(recipe(steps), seed, width, LAYERS))
    goal = -plain.evaluate()[0]
    first = trained(decoder(recipe(round(FIRST * steps)), seed, width, LAYERS))
    inner = round(small_steps * steps)
    small = decoder(recipe(inner), seed, width // 2, LAYERS // 2)
    small.load_weights(grow_weights(first.state()["weights"], DOWN))
    small = trained(small)
    alone = trained(decoder(recipe(inner), seed, width // 2, LAYERS // 2))
    cheap = time_ratio(seed, width)
    found = {"plain_loss": goal, "small_loss": -small.evaluate()[0], "small_step_over_plain": cheap}
    start = mixed(first.state()["weights"], grow_weights(small.state()["weights"], UP), share)
    last = last_stage(start, seed, steps, width, goal)
    found |= ratios("", FIRST * steps, inner, last, steps, cheap)
    start = with_noise(grow_weights(alone.state()["weights"], UP), seed)
    found |= ratios("grown_", 0, inner, last_stage(start, seed, steps, width, goal), steps, cheap)
    told = {name: round(value, 3) for name, value in found.items()}
    print(f"v_cycle: seed {seed}: {told}", flush=True)
    return found


def time_ratio(seed: int, width: int) -> float:
    """Return the time of a step of the small decoder over that of the whole: the median of pairs."""
    members = [decoder(recipe(100), seed, width // part, LAYERS // part) for part in (1, 2)]
    found = []
    for _ in range(9):  # both see the machine in the same state
        seconds = []
        for member in members:
            began = time.perf_counter()
            member.train(3)
            seconds.append(time.perf_counter() - began)
        found.append(seconds[1] / seconds[0])
    return float(np.median(found[1:]))


def last_stage(
    start: dict[str, Any], seed: int, steps: int, width: int, goal: float
) -> tuple[float, float, bool]:
    """Return the steps to the plain loss, the last loss less that, and whether any length comes to it."""
    lengths, losses = [0.0], []
    for length in LENGTHS:
        member = decoder(recipe(round(length * steps)), seed, width, LAYERS)
        member.load_weights(start)
        losses += [] if losses else [-member.evaluate()[0]]
        lengths.append(length)
        losses.append(-trained(member).evaluate()[0])
    # the first lengths around the goal are joined by a line
    place = next((each for each in range(1, len(losses)) if losses[each] <= goal), 0)
    if not place:
        return lengths[-1] * steps, losses[-1] - goal, False
    part = (losses[place - 1] - goal) / (losses[place - 1] - losses[place])
    taken = lengths[place - 1] + part * (lengths[place] - lengths[place - 1])
    return taken * steps, losses[-1] - goal, True


def ratios(
    name: str, first: float, small: float, last: tuple[float, float, bool], steps: int, cheap: float
) -> dict[str, Any]:
    """Return time and steps of all stages to the plain loss, over those of the plain run."""
    taken, above, reached = last
    return {
        f"{name}time_over_plain": (first + taken + cheap * small) / steps,
        f"{name}steps_over_plain": (first + taken + small) / steps,
        f"{name}loss_less_plain": above,
        f"{name}reached": reached,
    }


def recipe(steps: int) -> Recipe:
    return Recipe(steps=steps, warmup=min(20, steps // 4), learning_rate=RATE)


def trained(member: LanguageModel) -> LanguageModel:
    member.train(member.recipe.steps)
    return member


def with_noise(weights: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return weights with noise on the inner layers, without which copies stay equal."""
    rng = np.random.default_rng(seed)
    return {
        name: value + (NOISE * value.std() * rng.normal(size=value.shape)).astype(value.dtype)
        if name.endswith(("rise.weight", "fall.weight"))
        else value
        for name, value in weights.items()
    }
