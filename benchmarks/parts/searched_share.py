"""A population that searches the kept share of scored rows, beside the best fixed share at equal member-steps.

Members train in this process by the rules of a run. A member's share decides which rows its stream passes over:
those of the largest scores stay, as under `sampling.rule: kept_share`.
"""

import copy
import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.parts.dsir_choices import SHAPE, Rows, build, counts
from benchmarks.quality import better, summary
from shoal.policies import population
from shoal.policies.exploit import Truncation
from shoal.policies.explore import Perturb
from shoal.policies.population import Report
from shoal.policies.rules import Rules
from shoal.policies.selection.ngrams import log_ratios, token_buckets
from shoal.policies.space import Float
from shoal.trainables.decoder import Decoder, initialise, token_losses
from shoal.trainables.scoring import row_losses

GRID = (0.03, 0.1, 0.3, 1.0)
STEPS, INTERVAL, BATCH, RATE = 160, 32, 8, 3e-3
RULES = Rules(Truncation(0.25), Perturb(0.25, (0.6, 1.6)))
SPACE = {"share": Float(0.03, 1.0, log=True)}
MOST_ROWS = 6000  # rows of the pool


class ShareMember:
    """A decoder that trains on the best share of rows by their score."""

    def __init__(self, rows: Rows, share: float, seed: int):
        self.rows, self.share, self.rng = rows, share, np.random.default_rng(seed)
        self.model = Decoder(SHAPE)
        initialise(self.model, torch.Generator().manual_seed(seed))
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=RATE, weight_decay=0.1)

    def train(self, steps: int) -> None:
        kept = max(1, round(self.share * len(self.rows)))
        for _ in range(steps):
            tokens = torch.from_numpy(self.rows[self.rng.integers(0, kept, BATCH)].astype(np.int64))
            self.optimiser.zero_grad()
            token_losses(self.model(tokens), tokens).mean().backward()
            self.optimiser.step()

    def follow(self, donor: "ShareMember", share: float) -> None:
        """Go on from a donor's weights with a share of one's own."""
        self.model.load_state_dict(donor.model.state_dict())
        self.optimiser.load_state_dict(copy.deepcopy(donor.optimiser.state_dict()))
        self.share = share

    def score(self, rows: Rows) -> float:
        return -float(row_losses(self.model, rows).mean())


def evolved(rows: Rows, held_out: Rows, seed: int) -> tuple[ShareMember, list[float]]:
    """Train a population; return its best member, and the shares that members ended with."""
    state = population.start(SPACE, len(GRID), seed)
    members = {
        number: ShareMember(rows, known.hyperparameters["share"], 100 * seed + number)
        for number, known in enumerate(state)
    }
    for round_ in range(1, STEPS // INTERVAL + 1):
        for member in members.values():
            member.train(INTERVAL)
        scores = {number: member.score(held_out) for number, member in members.items()}
        if round_ * INTERVAL < STEPS:
            reports = [Report(number, round_ * INTERVAL, score) for number, score in scores.items()]
            state, orders = population.decide(RULES, SPACE, state, reports, seed)
            # all donors' weights are those that they reported with
            donors = {order.donor: copy.deepcopy(members[order.donor]) for order in orders}
            for order in orders:
                members[order.member].follow(donors[order.donor], order.hyperparameters["share"])
    best = max(members, key=lambda number: scores[number])
    return members[best], sorted(member.share for member in members.values())


def searched_share(corpus: str, seeds: int, times: int) -> dict[str, Any]:
    texts = build(corpus, 1.0)
    some = np.random.default_rng(0).permutation(len(texts.pool))[:MOST_ROWS]
    pool = texts.pool[some]
    ratio = log_ratios(counts(texts.target), counts(pool), 0.5)
    scores: NDArray[np.float64] = ratio[token_buckets(pool, 2, len(ratio))].sum(axis=1)
    rows = pool[np.argsort(-scores, kind="stable")]
    judge, test = texts.target[:64], texts.held_out[:256]
    found: dict[str, Any] = {"population": [], "shares": [], **{str(share): [] for share in GRID}}
    for seed in range(seeds * times):
        best, shares = evolved(rows, judge, seed)
        found["population"].append(-best.score(test))
        found["shares"].append(shares)
        for number, share in enumerate(GRID):
            member = ShareMember(rows, share, 100 * seed + number)
            member.train(STEPS)
            found[str(share)].append(-member.score(test))
        print(f"searched: seed {seed}", file=sys.stderr, flush=True)
    fixed = min(GRID, key=lambda share: float(np.mean(found[str(share)])))
    chosen = [min(each) for each in zip(*(found[str(share)] for share in GRID), strict=True)]
    return {
        "loss": {name: summary(values) for name, values in found.items() if name != "shares"},
        "best_fixed_share": fixed,
        "better_than_best_fixed": better(found["population"], found[str(fixed)], higher=False),
        "better_than_best_of_each_grid": better(found["population"], chosen, higher=False),
        "shares_at_the_end": found["shares"],
    }
