"""Networks that run as any of their parts: which parts, the same when cut out, and what they cost."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from shoal.trainables.distill.cost import decoder_cost, encoder_cost, latency, published_cost
from shoal.trainables.distill.decoder import ElasticDecoder
from shoal.trainables.distill.elastic import extract
from shoal.trainables.distill.encoder import ElasticEncoder
from shoal.trainables.distill.spaces import AUTODISTIL, ElasticShape, Subnet, SubSpace, kept_layers, sandwich

SPACE = SubSpace((2, 3, 4), (2, 3, 4), (32, 48, 64), (1.0, 2.0, 4.0), layers=4, head_width=16)
FAMILIES = {"encoder": (ElasticEncoder, encoder_cost), "decoder": (ElasticDecoder, decoder_cost)}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small are slower on two threads, and far slower beside other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def shape_of(family: str, subnet: Subnet, vocabulary: int = 61) -> ElasticShape:
    own = {"encoder": {}, "decoder": {"family": "decoder", "activation": "silu", "epsilon": 1e-6}}[family]
    return ElasticShape(
        vocabulary=vocabulary,
        positions=20,
        layers=len(subnet.layers),
        heads=subnet.heads,
        width=subnet.width,
        inner=subnet.inner,
        head_width=subnet.head_width,
        **own,
    )


def network(family: str, seed: int = 0):
    torch.manual_seed(seed)
    made = FAMILIES[family][0](shape_of(family, SPACE.whole)).eval()
    for weight in made.parameters():
        if weight.dim() == 1:
            torch.nn.init.normal_(weight, 0.5, 0.3)  # so that a wrong cut of a norm or bias shows
    return made


def rows(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    mask = torch.arange(12) < torch.tensor([[12], [7], [1]])
    return torch.randint(61, (3, 12)), mask


def test_layers_are_spread_as_the_released_code_spreads_them() -> None:
    assert kept_layers(4, 12) == (0, 3, 6, 9)
    assert kept_layers(5, 12) == (0, 2, 4, 7, 9)
    assert kept_layers(7, 12) == (0, 1, 3, 5, 6, 8, 10)
    assert kept_layers(9, 12) == (0, 1, 2, 4, 5, 6, 8, 9, 10)
    assert kept_layers(11, 12) == tuple(range(11)) and kept_layers(12, 12) == tuple(range(12))


def test_the_papers_sub_spaces_have_its_ranges_of_cost() -> None:
    ranges = {
        "tiny": (4.44, 10.71, 0.069, 0.521),
        "small": (12.61, 28.20, 0.638, 2.320),
        "base": (39.21, 79.36, 2.971, 7.854),
    }
    for name, (fewest, most, cheapest, dearest) in ranges.items():
        costs = [published_cost(subnet) for subnet in AUTODISTIL[name]]
        assert len(set(AUTODISTIL[name])) == len(costs) == len(AUTODISTIL[name]) == 256
        assert min(cost.parameters for cost in costs) / 1e6 == pytest.approx(fewest, abs=0.005)
        assert max(cost.parameters for cost in costs) / 1e6 == pytest.approx(most, abs=0.005)
        assert min(cost.macs for cost in costs) / 1e9 == pytest.approx(cheapest, abs=0.0005)
        assert max(cost.macs for cost in costs) / 1e9 == pytest.approx(dearest, abs=0.0005)


@pytest.mark.parametrize(
    ("depth", "heads", "width", "ratio", "published", "executed"),
    [
        (7, 10, 160, 3.5, (6.89, 0.275), (9.14, 0.674)),
        (11, 8, 352, 4.0, (26.09, 2.019), (29.94, 2.595)),
        (11, 7, 256, 3.0, (14.35, 0.870), (17.42, 1.361)),
        (12, 9, 544, 3.0, (50.11, 4.403), (53.61, 4.879)),
        (12, 12, 768, 4.0, (109.48, 11.25), None),  # BERT-base itself
        (11, 10, 352, 4.0, (26.77, 2.128), None),
    ],
)
def test_the_papers_cost_table(depth, heads, width, ratio, published, executed) -> None:
    subnet = Subnet(kept_layers(depth, 12), heads, width, int(width * ratio), 64)
    cost = published_cost(subnet)
    assert (round(cost.parameters / 1e6, 2), pytest.approx(cost.macs / 1e9, abs=0.006)) == published
    if executed:
        bert = ElasticShape(30522, 512, 12, 12, 768, 3072, 64)
        cost = encoder_cost(bert.cut(subnet), 128)
        assert (round(cost.parameters / 1e6, 2), round(cost.macs / 1e9, 3)) == executed


@pytest.mark.parametrize("family", FAMILIES)
class TestEveryFamily:
    def test_a_cut_out_part_computes_the_same(self, family: str) -> None:
        whole, (tokens, mask) = network(family), rows()
        rng = np.random.default_rng(0)
        for subnet in [SPACE.smallest, SPACE.whole, *(SPACE.draw(rng) for _ in range(20))]:
            alone = extract(whole, subnet)
            with torch.no_grad():
                for given in (None, mask):
                    inside, outside = whole(tokens, given, subnet), alone(tokens, given)
                    real = slice(None) if given is None else given
                    for one, other in zip(inside, outside, strict=True):
                        assert (one[real] - other[real]).abs().max() < 1e-6
                if family == "encoder":
                    pooled = whole.pool(inside.hidden), alone.pool(outside.hidden)
                else:
                    pooled = whole.logits(inside.hidden), alone.logits(outside.hidden)
                assert (pooled[0] - pooled[1]).abs().max() < 1e-5

    def test_a_cut_out_part_has_weights_of_its_own(self, family: str) -> None:
        whole, (tokens, _) = network(family), rows()
        alone = extract(whole, SPACE.smallest)
        before = whole(tokens, subnet=SPACE.smallest).hidden
        with torch.no_grad():
            for weight in alone.parameters():
                weight.zero_()
        assert torch.equal(whole(tokens, subnet=SPACE.smallest).hidden, before)

    def test_gradients_stay_inside_the_part(self, family: str) -> None:
        whole, (tokens, mask) = network(family), rows()
        subnet = SPACE.subnet(2, 3, 48, 2.0)  # layers 0 and 2 of 4
        alone = extract(whole, subnet)
        for model, part in ((whole, subnet), (alone, None)):
            model(tokens, mask, part).hidden[mask].square().sum().backward()
        inside = {name: weight.shape for name, weight in alone.named_parameters() if weight.grad is not None}
        for name, weight in whole.named_parameters():
            if name.startswith(("blocks.1.", "blocks.3.")):
                assert weight.grad is None
            elif weight.grad is not None:
                shape = inside[name.replace("blocks.2.", "blocks.1.")]
                outside = weight.grad.clone()
                outside[tuple(slice(size) for size in shape)] = 0
                assert not outside.any() and weight.grad.any()

    def test_the_count_is_that_of_the_extracted_network(self, family: str) -> None:
        whole, cost = network(family), FAMILIES[family][1]
        tokens = torch.randint(61, (1, 12))
        for place, subnet in enumerate(SPACE):
            alone = extract(whole, subnet)
            parameters = sum(weight.numel() for weight in alone.parameters())
            assert cost(alone.shape, 12).parameters == parameters
            if place % 10:
                continue
            counter = FlopCounterMode(display=False)
            with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), counter:
                hidden = alone(tokens).hidden
                _ = alone.pool(hidden) if family == "encoder" else alone.logits(hidden)
            assert cost(alone.shape, 12).macs == counter.get_total_flops() / 2

    def test_padding_does_not_reach_real_tokens(self, family: str) -> None:
        whole, (tokens, mask) = network(family), rows()
        changed = torch.where(mask, tokens, (tokens + 1) % 61)
        with torch.no_grad():
            for one, other in zip(whole(tokens, mask), whole(changed, mask), strict=True):
                assert torch.allclose(one[mask], other[mask], atol=1e-6)
                assert torch.isfinite(one).all()

    def test_latency_is_measured(self, family: str) -> None:
        assert latency(network(family), SPACE.smallest, rows()[0], repeats=3) > 0


def test_the_sandwich_has_the_ends_in_every_step_and_the_rest_evenly() -> None:
    counts: dict[Subnet, int] = {}
    for step in range(1000):
        chosen = sandwich(SPACE, np.random.default_rng([7, step]))
        again = sandwich(SPACE, np.random.default_rng([7, step]))
        assert chosen == again  # so every rank that seeds with the step trains the same
        assert chosen[:2] == [SPACE.largest, SPACE.smallest] and len(set(chosen)) == 4
        for subnet in chosen[2:]:
            counts[subnet] = counts.get(subnet, 0) + 1
    others = len(SPACE) - 2
    expected = 2000 / others  # 25.3 of each of 79
    statistic = sum((counts.get(subnet, 0) - expected) ** 2 for subnet in SPACE) / expected - 2 * expected
    assert len(counts) == others
    assert statistic < 120  # chi-square with 78 degrees of freedom: 0.1 % of draws are above


def test_a_tilt_draws_large_parts_more_often() -> None:
    rng = np.random.default_rng(0)
    depths = [len(SPACE.draw(rng, tilt=np.log(4)).layers) for _ in range(3000)]
    # weights 1, 2, 4 of the three depths
    assert np.bincount(depths)[2:] / 3000 == pytest.approx([1 / 7, 2 / 7, 4 / 7], abs=0.03)


def test_a_space_smaller_than_the_sandwich_is_trained_whole() -> None:
    space = SubSpace((1, 2), (2,), (32,), (2.0,), layers=2, head_width=16)
    assert sandwich(space, np.random.default_rng(0)) == [space.largest, space.smallest]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": (2, 13)}, "depths must be at most the network's 12 layers"),
        ({"heads": (4, 2)}, r"heads must be rising numbers above 0, got \[4, 2\]"),
        ({"ratios": (2.0, 2.001)}, "ratios must differ by a unit"),
    ],
)
def test_a_space_that_cannot_be_is_refused(change, message) -> None:
    values = {"depths": (2,), "heads": (2,), "widths": (32,), "ratios": (2.0,)}
    with pytest.raises(ValueError, match=message):
        SubSpace(**values | change)


def test_a_part_larger_than_the_network_is_refused() -> None:
    with pytest.raises(ValueError, match="width must fit into 64, got 80"):
        extract(network("encoder"), SPACE.largest._replace(width=80))
    with pytest.raises(ValueError, match=r"layers must be below 4, got \(0, 4\)"):
        extract(network("encoder"), SPACE.largest._replace(layers=(0, 4)))
