"""Loss over cost in the report: hand-worked points, their front, and the score without its price."""

from shoal.search.records.tables import Event
from shoal.search.report.costs import Priced, cost_figure, costs, members_with_costs
from shoal.search.report.story import Story


def story(points: dict[int, tuple[float | None, float | None]], price: float = 0.0, **summary: str) -> Story:
    """Return the story of members of these costs and scores."""
    rows = {
        member: [{"round": 1, "step": 5, "member": member, "cost": cost, "score": score}]
        for member, (cost, score) in points.items()
    }
    starts = [Event("start", 0, 0, member, None, None, None, None, {"density": 1.0}) for member in points]
    return Story("", {"price": price}, summary, starts, rows)


def test_the_front_is_that_of_scores_without_their_price_by_hand() -> None:
    # losses 2.0, 1.5, 1.6 and 1.4 at costs .2, .5, .6 and 1: the third is beaten by the second
    scores = {
        0: (0.2, -2.0 - 0.1),
        1: (0.5, -1.5 - 0.25),
        2: (0.6, -1.6 - 0.3),
        3: (1.0, -1.4 - 0.5),
        4: (0.1, None),
    }
    told = story(scores, 0.5, ranked_by="minus validation loss, less its price", better="higher")
    points = members_with_costs(told)
    assert [(point.member, round(point.score, 9), point.kept) for point in points] == [
        (0, -2.0, True),
        (1, -1.5, True),
        (2, -1.6, False),
        (3, -1.4, True),
    ]
    figure = cost_figure(told, points)
    assert figure.data[1]["y"] == [2.0, 1.5, 1.4] and figure.table.columns[2] == "validation loss"
    assert "Validation loss over cost" in costs(told)


def test_a_run_without_costs_has_no_such_section() -> None:
    assert costs(story({0: (None, -1.0)}, ranked_by="validation loss", better="lower")) == ""


def test_a_score_that_is_no_loss_keeps_its_sign() -> None:
    told = story({0: (0.5, 0.9)}, ranked_by="right choices, less their price", better="higher")
    assert members_with_costs(told) == [Priced(0, 0.5, 0.9, True)]
    assert cost_figure(told, members_with_costs(told)).data[1]["y"] == [0.9]
