"""All of population based training, without Ray: start, train, decide, copy. It runs for a second.

On Ray, `shoal run examples/toy.yaml` makes the same copies and ends with the same scores: a test holds it to
that. A model of your own stands in the place of `Toy` once it has train, evaluate, state and load.
"""

from collections.abc import Iterator

from shoal.policies import population
from shoal.policies.exploit import Truncation
from shoal.policies.explore import Perturb
from shoal.policies.population import Order, Report
from shoal.policies.rules import Rules
from shoal.policies.space import Float, Space
from shoal.trainables.toy import Toy


def train(
    space: Space, rules: Rules, members: int, steps: int, interval: int, seed: int
) -> Iterator[tuple[list[Report], list[Order]]]:
    """Train a population of the toy; yield the reports of each ready point, and the orders to copy."""
    state = population.start(space, members, seed)
    models = [Toy(member.hyperparameters) for member in state]
    for step in range(interval, steps + 1, interval):
        for model in models:
            model.train(interval)
        reports = [Report(member, step, model.evaluate()[0]) for member, model in enumerate(models)]
        orders: list[Order] = []
        if step < steps:
            state, orders = population.decide(rules, space, state, reports, seed)
        weights = {order.donor: models[order.donor].state() for order in orders}
        for order in orders:
            models[order.member].load(weights[order.donor], order.hyperparameters)
        yield reports, orders


if __name__ == "__main__":
    toy = {"h0": Float(0.0, 1.0), "h1": Float(0.0, 1.0)}
    for reports, orders in train(toy, Rules(Truncation(0.25), Perturb()), 4, 200, 4, seed=3):
        copies = ", ".join(f"{order.member} copies {order.donor}" for order in orders)
        print(f"step {reports[0].step:3}  best score {max(report.score for report in reports):.4f}  {copies}")
