"""What holds for every objective: a new kind is tested here as soon as it has a name."""

from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest
import torch
from torch.func import vmap

from shoal.trainables.objectives.interface import NamedLoss
from shoal.trainables.objectives.inverted_hinge import hinge
from shoal.trainables.objectives.kinds import OBJECTIVES
from tests.helpers.objectives import CASES, SIZES, begun, given, made, numbers_of

# a member's step looks at these: tests of the steps have them
OF_STEPS = ("decay", "strength", "ascent", "reach", "share")
OF_OTHER_FORMS = (("forget", "beta", "hinge"),)  # this number belongs to the kind's other form


def kind_of(objective: NamedLoss) -> str:
    return next(kind for kind, of in OBJECTIVES.items() if of is type(objective))


@pytest.fixture(params=CASES, ids=str)
def objective(request: pytest.FixtureRequest) -> NamedLoss:
    return made(request.param)


def test_every_number_is_a_field_with_a_default_that_is_allowed() -> None:
    for kind, of in OBJECTIVES.items():
        names = {field.name for field in fields(of)}
        assert set(of.searched) <= names, kind
        assert all(isinstance(value, float) for value in numbers_of(of()).values()), kind


def test_the_loss_is_by_row_where_it_says_so(objective: NamedLoss) -> None:
    out, batch = given()
    losses, _ = objective.loss(out, batch, numbers_of(objective), begun(objective))
    assert losses.shape == ((SIZES.rows,) if objective.by_row else ())
    assert losses.isfinite().all()


def test_rows_in_another_order_have_the_same_losses(objective: NamedLoss) -> None:
    out, batch = given()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    state, numbers = begun(objective), numbers_of(objective)
    one, _ = objective.loss(out, batch, numbers, state)
    other, _ = objective.loss(
        {name: each[order] for name, each in out.items()},
        {name: each[order] for name, each in batch.items()},
        numbers,
        state,
    )
    assert torch.allclose(other, one[order] if objective.by_row else one, atol=1e-12)


def test_gradients_are_those_of_finite_differences(objective: NamedLoss, monkeypatch) -> None:
    """Weights that have no gradient on purpose are held at their first values while the rest is moved."""
    held: list[torch.Tensor] = []
    state, numbers = begun(objective), numbers_of(objective)
    places, detach = iter(()), torch.Tensor.detach

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        place = next(places)
        if place == len(held):
            held.append(detach(tensor).clone())
        return held[place]

    out, batch = given()
    names = sorted(out)

    def total(*parts: torch.Tensor) -> torch.Tensor:
        nonlocal places
        places = iter(range(1000))
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "detach", hold)
            return objective.loss(dict(zip(names, parts, strict=True)), batch, numbers, state)[0].sum()

    parts = tuple(out[name].requires_grad_() for name in names)
    assert torch.autograd.gradcheck(total, parts, eps=1e-6, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_gradients_of_the_hinge_are_those_of_finite_differences(seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 5, 7, generator=draws, dtype=torch.float64).requires_grad_()
    targets = torch.randint(7, (2, 5), generator=draws)
    assert torch.autograd.gradcheck(lambda given: hinge(given, targets), (logits,), eps=1e-6, atol=1e-6)
    found = hinge(logits, targets)
    assert (found >= 0).all() and (found <= 2).all()


def test_a_stack_of_three_with_other_numbers_is_three_single_ones(objective: NamedLoss) -> None:
    outs, batches = zip(*(given(seed) for seed in range(3)), strict=True)
    several = [
        {name: each * (1 - 0.1 * place) for name, each in numbers_of(objective).items()} for place in range(3)
    ]
    state = begun(objective)

    def one(out, batch, numbers, state):
        losses, signals = objective.loss(out, batch, numbers, state)
        return losses, dict(objective.after(state, signals, numbers))

    def stacked(nests):
        return {name: torch.stack([torch.as_tensor(nest[name]) for nest in nests]) for name in nests[0]}

    told = {name: value.double() for name, value in stacked(several).items()}
    together, states = vmap(one)(stacked(outs), stacked(batches), told, stacked([state] * 3))
    for place in range(3):
        alone, after = one(outs[place], batches[place], several[place], state)
        assert torch.allclose(together[place], alone, atol=1e-10)
        assert all(torch.allclose(states[name][place], value, atol=1e-10) for name, value in after.items())


def test_what_is_given_stays_as_it_was_and_nothing_is_drawn(objective: NamedLoss) -> None:
    out, batch = given()
    state, numbers = begun(objective), numbers_of(objective)
    before = {name: value.clone() for name, value in (out | batch | state).items()}
    random = torch.get_rng_state()
    first, signals = objective.loss(out, batch, numbers, state)
    after = objective.after(state, signals, numbers)
    again, _ = objective.loss(out, batch, numbers, state)
    assert torch.equal(first, again) and torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in (out | batch | state).items())
    assert after.keys() == state.keys() and bool(after) == objective.stateful
    assert not any(value.requires_grad for value in signals.values())


@pytest.mark.parametrize("trouble", ["one class", "one row", "equal rows", "huge", "all unlabelled"])
def test_no_loss_or_gradient_is_nan(objective: NamedLoss, trouble: str) -> None:
    out, batch = given(rows=1 if trouble == "one row" else 6, kind=torch.float32)
    if trouble == "one class":
        batch["label"] = torch.zeros_like(batch["label"])
    if trouble == "equal rows":
        out = {name: each[:1].expand(each.shape).clone() for name, each in out.items()}
    if trouble == "huge":
        out = {name: each.sign() * 1e4 for name, each in out.items()}
    if trouble == "all unlabelled":
        batch["unlabelled"] = torch.ones_like(batch["label"])
    parts = {name: each.requires_grad_() for name, each in out.items()}
    losses, _ = objective.loss(parts, batch, numbers_of(objective), begun(objective, torch.float32))
    assert losses.isfinite().all()
    losses.sum().backward()
    assert all(each.grad is None or each.grad.isfinite().all() for each in parts.values())


def test_float32_is_near_float64(objective: NamedLoss) -> None:
    found = []
    for kind in (torch.float32, torch.float64):
        out, batch = given(kind=kind)
        found.append(objective.loss(out, batch, numbers_of(objective), begun(objective, kind))[0].double())
    assert torch.allclose(*found, atol=1e-4)


def test_each_number_changes_the_loss_and_none_a_prediction(objective: NamedLoss) -> None:
    state, numbers = begun(objective), numbers_of(objective)
    for name in objective.searched:
        if not numbers[name] and name in ("gamma", "spread", "flipped", "sft", "mixed"):
            continue  # it belongs to the other form
        if name in OF_STEPS or (kind_of(objective), name, getattr(objective, "form", "")) in OF_OTHER_FORMS:
            continue
        changed = False
        for seed in range(200):
            out, batch = given(seed)
            found = []
            for told in (numbers, numbers | {name: numbers[name] * 0.1}):
                losses, signals = objective.loss(out, batch, told, state)
                found.append([losses, *objective.after(state, signals, told).values()])
            changed |= any(not torch.equal(one, other) for one, other in zip(*found, strict=True))
            if changed:
                break
        assert changed, name
    assert "numbers" not in signature(type(objective).predict).parameters


def test_every_kind_has_a_line_in_the_guide() -> None:
    page = (Path(__file__).parents[3] / "docs/objectives.md").read_text()
    for kind, of in OBJECTIVES.items():
        [line] = [line for line in page.splitlines() if line.startswith(f"| `{kind}` |")]
        assert all(f"`{name}`" in line for name in of.searched), kind
