"""The built-in embedder: places, scores, every objective of pairs in stacks, copies, and slices."""

import numpy as np
import pytest
import torch

from shoal.trainables.batches import Shuffled
from shoal.trainables.embedder import Embedder, gain_at_10, places_of, recall_at_1, reciprocal_at_10
from shoal.trainables.embedder_settings import EmbedderSettings
from shoal.trainables.objectives.contrastive import Contrastive
from shoal.trainables.objectives.kinds import OBJECTIVES
from shoal.trainables.objectives.weighted import weighted_sum
from shoal.trainables.settings import Recipe
from shoal.trainables.stack import Stack
from tests.helpers.members import equal
from tests.helpers.objectives import numbers_of

KINDS = ["contrastive", "guided", "star", "hard_negatives", "teacher_scores", "individual_temperatures"]


def pairs(seed: int, rows: int = 40) -> dict[str, np.ndarray]:
    """Return queries and positives that share 4 of 12 numbers, after a mixing of their own."""
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(rows, 4))
    mixing = np.random.default_rng(99).normal(size=(2, 12, 12))
    found = [np.hstack([meaning, 0.3 * rng.normal(size=(rows, 8))]) @ each for each in mixing]
    names = ("query", "positive", "guide_query", "guide_positive")
    vectors = {
        name: each.astype(np.float32) for name, each in zip(names, (*found, meaning, meaning), strict=True)
    }
    # two negatives of each query are the positives of others, and a teacher that knows the meanings scores all
    others = np.stack([np.roll(np.arange(rows), step) for step in (1, 2)], axis=1)
    known = meaning / np.linalg.norm(meaning, axis=1, keepdims=True)
    candidates = np.hstack([np.arange(rows)[:, None], others])
    teacher = np.einsum("rw,rmw->rm", known, known[candidates]).astype(np.float32)
    return vectors | {"negatives": vectors["positive"][others], "teacher": teacher, "row": np.arange(rows)}


def embedder(kind: str = "contrastive", seed: int = 0, chosen: dict | None = None, **settings) -> Embedder:
    held_out = {"one": pairs(7), "two": pairs(8)}
    return Embedder(
        Recipe(steps=200, warmup=2, learning_rate=0.02),
        dict(chosen or {}),
        Shuffled(pairs(1, 200), batch=16, seed=seed),
        {"validation": held_out, "test": held_out},
        seed,
        settings=EmbedderSettings(**{"width": 8, "towers": "two", **settings}),
        losses=weighted_sum([(kind, OBJECTIVES[kind]())]),
        sizes={"query": 12, "positive": 12},
    )


def searched(kind: str, factor: float) -> dict:
    made = OBJECTIVES[kind]()
    return {"objective": {name: getattr(made, name) * factor for name in made.searched}}


def test_ranks_and_scores_by_hand() -> None:
    cosines = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.5, 0.6], [0.3, 0.4, 0.4]])
    # the first positive is the nearest, two lie before the second, and the third's copy does not push it down
    copies = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 1, 1]]) > 0
    places = places_of(cosines, torch.arange(3), copies & (cosines != 0.6))
    assert places.tolist() == [1, 3, 1]
    # one that only lies as near does, or equal embeddings of all rows would be a perfect score
    assert places_of(cosines, torch.arange(3), torch.eye(3) > 0).tolist() == [1, 3, 2]
    assert recall_at_1(places).item() == pytest.approx(2 / 3)
    assert reciprocal_at_10(places).item() == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert gain_at_10(places).item() == pytest.approx((1 + 1 / np.log2(4) + 1) / 3)
    assert reciprocal_at_10(torch.tensor([11])).item() == 0.0


def test_what_has_collapsed_or_diverged_has_no_good_score() -> None:
    member = embedder(towers="one")
    for weight in member.module.parameters():
        weight.data.zero_()
    assert member.evaluate()[0] == 0.0 and member.measure()["recall_one"] == 0.0
    for weight in member.module.parameters():
        weight.data.fill_(float("nan"))
    assert np.isnan(member.evaluate()[0])


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedder_learns_which_vectors_belong_together(kind: str) -> None:
    member = embedder(kind, layers=0)
    first = member.evaluate()[0]
    member.train(150)
    assert first < 0.2 and member.evaluate()[0] > 0.4
    assert member.measure()["mrr_one"] > member.measure()["recall_one"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_does_not_depend_on_a_searched_number(kind: str) -> None:
    found = []
    for factor in (1.0, 0.5):
        member = embedder(kind, 3, searched(kind, factor) | {"drop": 0.5 * factor})
        found.append((member.evaluate(), member.measure()))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_trains_as_its_members_alone(kind: str) -> None:
    stack = Stack([embedder(kind, seed, searched(kind, 1 - 0.2 * seed), slices=(4,)) for seed in range(3)])
    for seed, loss in enumerate(stack.train(5)):
        alone = embedder(kind, seed, searched(kind, 1 - 0.2 * seed), slices=(4,))
        assert alone.train(5) == pytest.approx(loss, rel=1e-4)


def test_a_copy_goes_on_bit_for_bit() -> None:
    donor, copy = embedder(seed=1, drop=0.2, layers=1), embedder(seed=2, drop=0.2, layers=1)
    donor.train(3)
    copy.load(donor.state(), {})
    assert donor.train(3) == copy.train(3) and equal(donor.state(), copy.state())


def test_the_loss_of_slices_is_the_mean_of_theirs() -> None:
    member = embedder(slices=(2, 4))
    batch = {name: torch.from_numpy(value) for name, value in pairs(1, 6).items()}
    out = member.embedded(member.module, batch, member.sober)
    made = Contrastive()
    each = [
        made.loss({name: part[:, :width] for name, part in out.items()}, {}, numbers_of(made), {})[0]
        for width in (2, 4, 8)
    ]
    assert torch.allclose(member.loss(member.module, batch, member.sober), torch.stack(each).mean(dim=0))


def test_the_contrastive_loss_is_that_of_sentence_transformers() -> None:
    losses = pytest.importorskip("sentence_transformers.losses")
    draws = torch.Generator().manual_seed(0)
    query, positive = (
        torch.nn.functional.normalize(torch.randn(6, 5, generator=draws), dim=1) for _ in range(2)
    )
    theirs = losses.MultipleNegativesRankingLoss(torch.nn.Identity(), scale=20.0)
    wanted = theirs.compute_loss_from_embeddings([query, positive], None)
    own = ~torch.eye(6, dtype=torch.bool)
    made = Contrastive(temperature=0.05)
    assert made.direction(query, positive, own, numbers_of(made)).mean().item() == pytest.approx(
        wanted.item(), rel=1e-5
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"width": 0}, "width must be at least 1"),
        ({"slices": (8,)}, "slices must be at least 1 and below width"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EmbedderSettings(**{"width": 8, **given})
