"""What a mixing policy costs beside static shares at equal steps: its own work, and its evaluation passes.

`policy_share` is the time within the policy itself, `overhead` the difference of whole trainings, which is as
noisy as they are. DoReMi's reference and DoGE's gradients by group are in the overhead: they are measured
within the steps of the proxy, which is the whole run here.

One decoder of 115k weights in one thread, on made-up tokens, without Ray. Processor time and not wall time,
since other work on the machine then counts less; the least of several repeats, since noise only ever slows. The
last line is one JSON object.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shoal.policies.mixers.ado import ADO
from shoal.policies.mixers.aioli import Aioli
from shoal.policies.mixers.doge import DoGE
from shoal.policies.mixers.doremi import DoReMi
from shoal.policies.mixers.mixer import Groups, Mixer
from shoal.policies.mixers.plain import Stratified
from shoal.policies.mixers.skillit import SkillIt
from shoal.policies.mixers.visits import BoundedMixing
from shoal.policies.mixing import normalise
from shoal.search.config.mixing import PROBED
from shoal.search.corpus.batches import MixedBatches
from shoal.search.members.mixed import Mixed
from shoal.trainables.decoder import Decoder, losses_by_token
from shoal.trainables.language import LanguageModel
from shoal.trainables.reference import Reference
from shoal.trainables.settings import DecoderShape, Recipe

NAMES, LENGTH, BATCH, HELD = ("code", "docs", "law"), 64, 8, 32
SHAPE = DecoderShape(vocabulary=257, sequence_length=LENGTH, layers=2, heads=2, width=64)
STATIC = "stratified"


class Tokens:
    """A group of 2,000 rows of random tokens."""

    def __init__(self, seed: int):
        self.rows = np.random.default_rng(seed).integers(0, 257, (2000, LENGTH)).astype(np.uint16)

    def take(self, cursor: int, count: int) -> NDArray[np.uint16]:
        return self.rows[np.arange(cursor, cursor + count) % len(self.rows)]


class Timed(Mixed, LanguageModel):
    """Adds up the processor time of the policy: of its evaluation passes, and of all else that it does."""

    spent, own, deciding = 0.0, 0.0, False

    def sequence_losses(self, split: str) -> dict[str, NDArray[np.float64]]:
        began = time.process_time()
        found = super().sequence_losses(split)
        self.spent += time.process_time() - began
        return found

    def ready(self, limit: int) -> int:
        return self.timed(super().ready, limit)

    def heed(self) -> None:
        self.timed(super().heed)

    def timed(self, method: Callable[..., Any], *arguments: Any) -> Any:
        if self.deciding:  # within another one, which counts it
            return method(*arguments)
        began, spent, self.deciding = time.process_time(), self.spent, True
        try:
            return method(*arguments)
        finally:
            self.own += time.process_time() - began - (self.spent - spent)
            self.deciding = False


def policies(steps: int) -> dict[str, Mixer]:
    graph = tuple(tuple(row.tolist()) for row in np.eye(len(NAMES)))
    return {
        STATIC: Stratified(),
        "aioli": Aioli(every=steps // 4, probe_share=0.3, sweeps=1, noise=0.0, scale="column"),
        "ado": ADO(refit=steps // 4, skip=steps // 8),
        "skill-it": SkillIt(graph, every=steps // 4),
        "doremi": DoReMi(proxy_share=1.0),
        "doge": DoGE(proxy_share=1.0),
    }


def losses_by(module: Decoder) -> Callable[[Any], Tensor]:
    return lambda tokens: losses_by_token(module(tokens.long()), tokens.long())


def measure(mixer: Mixer, steps: int) -> tuple[float, float, int, float]:
    """Return seconds of training and of evaluation beside it, passes, and the policy's own seconds."""
    held = {name: Tokens(10 + place).take(0, HELD) for place, name in enumerate(NAMES)}
    batches = MixedBatches(
        {name: Tokens(place) for place, name in enumerate(NAMES)}, normalise([1.0] * 3), BATCH
    )
    groups, recipe, reference = Groups(NAMES, (2000,) * 3, BATCH, steps), Recipe(steps=steps), None
    if isinstance(mixer, DoReMi):
        reference = Reference(losses_by(Decoder(SHAPE)), steps=0)
    mixing = BoundedMixing(mixer)
    given: dict[str, Any] = {"mixing": mixing, "groups": groups, "reference": reference, "shape": SHAPE}
    member = Timed(recipe, {}, batches, {PROBED: held}, 0, **given)
    began = time.process_time()
    member.train(steps)
    trained = time.process_time() - began - member.spent
    return trained, member.spent, member.mixing_state["evaluations"], member.own


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixing_cost", description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="1000 steps, 9 repeats")
    arguments = parser.parse_args()
    steps, repeats = (1000, 9) if arguments.full else (arguments.steps, arguments.repeats)
    torch.set_num_threads(1)
    mixers = policies(steps)
    measure(mixers[STATIC], 20)  # not counted: the first time allocates
    found: dict[str, list[tuple[float, float, int, float]]] = {name: [] for name in mixers}
    for _ in range(repeats):  # in turn, so that all meet the same noise
        for name, mixer in mixers.items():
            found[name].append(measure(mixer, steps))
    static = min(each[0] for each in found[STATIC])
    results: dict[str, dict[str, Any]] = {}
    for name, measured in found.items():
        trained = min(each[0] for each in measured)
        results[name] = {
            "policy_share": round(min(each[3] for each in measured) / static, 5),
            "overhead": round(trained / static - 1, 4),
            "evaluations": measured[0][2],
            "evaluation_share": round(min(each[1] for each in measured) / static, 4),
            "ms_per_step": round(1000 * trained / steps, 3),
        }
        print(name, results[name], flush=True)
    print(json.dumps({"steps": steps, "repeats": repeats, "results": results}))


if __name__ == "__main__":
    main()
