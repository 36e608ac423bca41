import pytest
import torch
from torch.nn import functional

from shoal.trainables.pretrained.head import TOKENS_AT_A_TIME, FrozenHead


@pytest.mark.parametrize("tokens", [0, 3, TOKENS_AT_A_TIME + 5])
@pytest.mark.parametrize(("smoothing", "z"), [(0.0, 0.0), (0.2, 0.01)])
def test_losses_and_gradients_are_those_of_the_logits(tokens: int, smoothing: float, z: float) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = (torch.randn(size, generator=generator) for size in ((11, 5), (11,)))
    hidden = torch.randn(tokens, 5, generator=generator).requires_grad_()
    targets = torch.randint(11, (tokens,), generator=generator)
    scale = torch.rand(tokens, generator=generator)
    logits = functional.linear(hidden, weight, bias)
    expected = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    expected = expected + z * logits.logsumexp(dim=-1).square()
    numbers = [torch.full((tokens,), number) if number else None for number in (smoothing, z)]
    found = FrozenHead.apply(hidden, weight, bias, targets, *numbers)
    assert torch.allclose(found, expected, atol=1e-5)
    slopes = [torch.autograd.grad((scale * each).sum(), hidden)[0] for each in (found, expected)]
    assert torch.allclose(*slopes, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(FrozenHead.apply(hidden, weight, bias, targets, *numbers), found)


def test_one_token_by_hand() -> None:
    hidden = torch.tensor([[1.0]], requires_grad=True)
    weight = torch.tensor([[0.0], [1.0]])
    loss = FrozenHead.apply(hidden, weight, None, torch.tensor([1]), None, None)
    # logits 0 and 1: log(1 + e) - 1 = 0.31326, and its slope is p(1) - 1 = 0.73106 - 1
    assert loss.item() == pytest.approx(0.31326, abs=1e-5)
    loss.sum().backward()
    assert hidden.grad.item() == pytest.approx(-0.26894, abs=1e-5)
