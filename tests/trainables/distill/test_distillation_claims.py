"""What the papers claim, on toys: each takes up to minutes, and compares means over seeds."""

import copy
import itertools

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional

from shoal.trainables.distill.cost import encoder_cost
from shoal.trainables.distill.encoder import ElasticEncoder
from shoal.trainables.distill.meal import soft_loss, soft_target
from shoal.trainables.distill.rotations import TURNS, rotated, self_distillation_loss
from shoal.trainables.distill.shared import SharedTeacher
from shoal.trainables.distill.spaces import ElasticShape, Subnet, SubSpace
from shoal.trainables.distill.supernet import DistillRecipe, Relation, SuperNetwork
from shoal.trainables.distill.teachers import Teacher
from tests.trainables.distill.test_supernet import Text, markov

pytestmark = pytest.mark.slow

AXES = {"layers": 4, "head_width": 16}
SPACE = SubSpace((2, 3, 4), (2, 3, 4), (32, 48, 64), (1.0, 2.0, 4.0), **AXES)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shared() -> SharedTeacher:
    """Return a teacher of 4 layers, 4 heads and width 64 that attends."""
    torch.manual_seed(0)
    teacher = ElasticEncoder(ElasticShape(40, 16, 4, 4, 64, 256, 16))
    with torch.no_grad():
        for weight in teacher.parameters():
            if weight.dim() == 2:
                weight.normal_(0.0, 1.5 * weight.shape[1] ** -0.5)
    return SharedTeacher(Teacher(teacher))


def trained(shared: SharedTeacher, space: SubSpace, steps: int, seed: int = 0) -> SuperNetwork:
    recipe = DistillRecipe(steps=steps, warmup=steps // 10, learning_rate=3e-3, weight_decay=0.0)
    held_out = {"validation": {"text": markov(64, 16, 10_000)}}
    origin, rows = shared.teacher.module, Text()
    rows.cursor = 1000 * seed
    relation = Relation(heads=8, seed=seed)
    member = SuperNetwork(space, origin, shared, relation, recipe, {}, rows, held_out, seed)
    member.train(steps)
    return member


def single(subnet: Subnet) -> SubSpace:
    ratio = subnet.inner / subnet.width
    return SubSpace((len(subnet.layers),), (subnet.heads,), (subnet.width,), (ratio,), **AXES)


def test_shared_weights_rank_networks_as_training_each_by_itself_does(shared) -> None:
    member = trained(shared, SPACE, 300)
    subnets = list(SPACE)
    losses = member.losses(subnets)
    shape = shared.teacher.module.shape
    costs = [encoder_cost(shape.cut(subnet), 16).parameters for subnet in subnets]
    # 0.50 was seen: a teacher with random weights has little that only large networks can learn
    assert spearmanr(losses, [-cost for cost in costs]).statistic > 0.4
    chosen = [0, 80, *np.random.default_rng(0).choice(np.arange(1, 80), 6, replace=False)]
    alone = []
    for place in chosen:
        one = trained(shared, single(subnets[place]), 300)
        alone.append(one.losses([one.space.largest])[0])
    # 0.48 was seen over these eight, most of which lie close together
    assert spearmanr([losses[place] for place in chosen], alone).statistic > 0.3


def test_three_sub_spaces_are_no_worse_than_one_of_all_at_equal_steps(shared) -> None:
    spaces = [
        SubSpace((2,), (2, 3), (32,), (1.0, 2.0), **AXES),
        SubSpace((3,), (2, 3), (48,), (1.0, 2.0), **AXES),
        SubSpace((4,), (3, 4), (64,), (2.0, 4.0), **AXES),
    ]
    apart, together = [], []
    for seed in range(5):
        # 100 steps each; one space with the 300 of all three came out level with them (0.059 against 0.062)
        large = trained(shared, SPACE, 100, seed)
        largest = [space.largest for space in spaces]
        together.append(large.losses(largest))
        apart.append([trained(shared, space, 100, seed).losses([space.largest])[0] for space in spaces])
    assert np.mean(apart) <= np.mean(together), (np.mean(apart, axis=0), np.mean(together, axis=0))


def moons(count: int, seed: int, noisy: float = 0.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return points of two interlocking half circles, their labels, and labels of which a share is wrong."""
    rng = np.random.default_rng(seed)
    labels, angles = rng.integers(2, size=count), rng.uniform(0, np.pi, count)
    points = np.where(
        labels[:, None] == 0,
        np.stack([np.cos(angles), np.sin(angles)], 1),
        np.stack([1 - np.cos(angles), 0.5 - np.sin(angles)], 1),
    )
    points += rng.normal(0, 0.15, points.shape)
    wrong = np.where(rng.random(count) < noisy, 1 - labels, labels)
    return torch.tensor(points, dtype=torch.float32), torch.tensor(labels), torch.tensor(wrong)


def perceptron(width: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 2))


def fit(network: nn.Module, points: torch.Tensor, loss, steps: int = 300) -> nn.Module:
    optimiser = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(network(points)).backward()
        optimiser.step()
    return network


def test_soft_labels_of_two_teachers_are_no_worse_than_labels_a_fifth_of_which_is_wrong() -> None:
    found: dict[str, list[float]] = {"hard": [], "soft": [], "both": []}
    for seed in range(20):
        # the teachers have seen far more points than there are labels for the student
        many, _, wrong = moons(1000, 100 + seed, 0.2)
        teachers = [
            fit(perceptron(64, 10 * seed + place), many, lambda z, y=wrong: functional.cross_entropy(z, y))
            for place in (1, 2)
        ]
        points, _, labels = moons(80, seed, 0.2)
        with torch.no_grad():
            target = soft_target(torch.stack([teacher(points) for teacher in teachers]))
        losses = {
            "hard": lambda z, y=labels: functional.cross_entropy(z, y),
            "soft": lambda z, p=target: soft_loss(z, p),
            "both": lambda z, y=labels, p=target: functional.cross_entropy(z, y) + soft_loss(z, p),
        }
        fresh, truth, _ = moons(1000, 500 + seed)
        for name, loss in losses.items():
            student = fit(perceptron(8, seed), points, loss)
            found[name].append((student(fresh).argmax(1) == truth).double().mean().item())
    means = {name: float(np.mean(each)) for name, each in found.items()}
    assert means["soft"] >= means["hard"], means
    assert means["both"] <= means["soft"], means


# ten digits of five by seven dots, a row of five bits each
GLYPHS = (
    (14, 17, 19, 21, 25, 17, 14),
    (4, 12, 4, 4, 4, 4, 14),
    (14, 17, 1, 2, 4, 8, 31),
    (31, 2, 4, 2, 1, 17, 14),
    (2, 6, 10, 18, 31, 2, 2),
    (31, 16, 30, 1, 1, 17, 14),
    (6, 8, 16, 30, 17, 17, 14),
    (31, 1, 2, 4, 8, 8, 8),
    (14, 17, 17, 14, 17, 17, 14),
    (14, 17, 17, 15, 1, 2, 12),
)


def digits(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noisy digits of 8 by 8, at any place where they fit: `(rows, 1, 8, 8)`, and which they are."""
    rng = np.random.default_rng(seed)
    labels, images = rng.integers(10, size=count), rng.normal(0, 0.6, (count, 1, 8, 8))
    for image, label in zip(images, labels, strict=True):
        down, right = rng.integers(2), rng.integers(4)
        glyph = np.array([[line >> (4 - bit) & 1 for bit in range(5)] for line in GLYPHS[label]])
        image[0, down : down + 7, right : right + 5] += glyph
    return torch.tensor(images, dtype=torch.float32), torch.tensor(labels)


class Staged(nn.Module):
    """Three stages of convolutions, with a head after each that is only there for training."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 8, 12, 16)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in itertools.pairwise(widths)
        )
        self.final = nn.Linear(16, 10)
        self.heads = nn.ModuleList(nn.Linear(width, 10 * TURNS) for width in widths[1:])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        joint = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = stage(x)
            joint.append(head(x.mean((2, 3))))
        return self.final(x.mean((2, 3))), joint


def accuracy(own_heads: bool, seed: int) -> float:
    torch.manual_seed(seed)
    network, (images, labels) = Staged(), digits(400, seed)
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(200):
        chosen = torch.randint(len(images), (64,), generator=generator)
        optimiser.zero_grad()
        if own_heads:
            final, joint = network(rotated(images[chosen]))
            loss = self_distillation_loss(final, joint, [], labels[chosen])
        else:
            loss = functional.cross_entropy(network(images[chosen])[0], labels[chosen])
        loss.backward()
        optimiser.step()
    fresh, truth = digits(1000, 1000 + seed)
    network.eval()
    with torch.no_grad():
        found = (network(fresh)[0].argmax(1) == truth).double().mean().item()
        # without its heads it is the same network
        bare = copy.deepcopy(network)
        bare.heads = nn.ModuleList(nn.Identity() for _ in bare.heads)
        assert torch.equal(bare(fresh)[0], network(fresh)[0])
    return found


def test_a_network_that_teaches_itself_by_rotations_is_no_worse() -> None:
    plain, taught = ([accuracy(own_heads, seed) for seed in range(5)] for own_heads in (False, True))
    assert np.mean(taught) >= np.mean(plain), (plain, taught)
