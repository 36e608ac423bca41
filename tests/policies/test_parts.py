"""Parts of a population decide as populations of their own."""

from shoal.policies import population
from shoal.policies.exploit import Truncation
from shoal.policies.explore import Perturb
from shoal.policies.parts import decide_within
from shoal.policies.population import Report
from shoal.policies.rules import Rules
from shoal.policies.space import Float

SPACE = {"rate": Float(0.001, 1.0, log=True)}
RULES = Rules(Truncation(0.5), Perturb())


def reports(scores: list[float]) -> list[Report]:
    return [Report(member, 10, score) for member, score in enumerate(scores)]


def test_nobody_copies_from_another_part() -> None:
    # members 0, 2 and 4, of which 4 is worst, and 1, 3 and 5, all better than these, of which 1 is worst
    state = population.start(SPACE, 6, 0)
    after, orders = decide_within(RULES, SPACE, state, reports([3, 10, 2, 20, 1, 30]), 0, parts=2)
    assert {(order.member, order.donor) for order in orders} == {(4, 0), (1, 5)}
    assert [known.score for known in after] == [3, None, 2, 20, None, 30]
    assert after[4].hyperparameters == next(o.hyperparameters for o in orders if o.member == 4)


def test_one_part_is_the_whole_population() -> None:
    state = population.start(SPACE, 4, 0)
    said = reports([1, 2, 3, 4])
    assert decide_within(RULES, SPACE, state, said, 5) == population.decide(RULES, SPACE, state, said, 5)


def test_parts_draw_differently() -> None:
    state = population.start(SPACE, 2, 0)
    same = (state[0], state[0], state[1], state[1])
    _, orders = decide_within(RULES, SPACE, same, reports([1, 1, 2, 2]), 0, parts=2)
    assert [(order.member, order.donor) for order in orders] == [(0, 2), (1, 3)]
    assert orders[0].hyperparameters != orders[1].hyperparameters
