"""A plan's numbers, worked by hand, and held to the network that is built."""

import pytest

import shoal
from shoal.search.front.plan import in_bytes
from tests.helpers.small_files import TEXT
from tests.search.front.test_given import SETTINGS, Still


@pytest.fixture
def text(tmp_path):
    (tmp_path / "run.yaml").write_text(TEXT)
    return tmp_path / "run.yaml"


def test_a_decoder_by_hand(text) -> None:
    changes = {
        "model": {"layers": 2, "heads": 2, "width": 8, "expansion": 4},
        "data.sequence_length": 16,
        "training": {"steps": 100, "batch": 4},
        "population": {"members": 6, "interval": 10},
        "cluster": {"broods": 1, "workers_per_brood": 2},
    }
    (plan,) = shoal.plan(text, changes)
    # 257 tokens; in a block two norms of 8, attention 4 * 8 * 8, feed-forward 2 * 8 * 32; then a norm of 8
    assert plan.weights == 257 * 8 + 2 * (2 * 8 + 4 * 64 + 2 * 8 * 32) + 8
    assert plan.member_bytes == 16 * plan.weights, "weights, two slots and gradients of 4 bytes each"
    assert plan.checkpoint_bytes == 12 * plan.weights * 6 * 3, "two are kept, and the next is being written"
    assert plan.tokens == 6 * 100 * 4 * 16
    assert (plan.workers, plan.members_per_worker, plan.reports) == (2, 3, 10)
    assert plan.worker_bytes == 3 * (16 + 12) * plan.weights


def test_a_mixture_is_two_populations(text) -> None:
    changes = {"kind": "mixture", "hyperparameters": {}, "swarm": {"runs": 12, "steps": 60, "repeats": 2}}
    swarm, confirm = shoal.plan(text, changes)
    assert (swarm.members, swarm.steps, confirm.members, confirm.steps) == (12, 60, 12, 200)
    assert swarm.weights < confirm.weights


def test_a_class_of_your_own_is_made_once() -> None:
    (plan,) = shoal.plan({**SETTINGS, "trainable": Still})
    assert plan.weights == 0
    (plan,) = shoal.plan(SETTINGS)
    assert plan.weights == 2


def test_the_lines_say_it_in_words(text) -> None:
    lines = "\n".join(shoal.plan(text)[0].lines())
    assert "text: 8 members, 200 steps each, a report every 20 steps" in lines
    assert "weights," in lines and "on the disk" in lines and "1 GB" not in lines.splitlines()[0]
    assert [in_bytes(amount) for amount in (12, 2048, 3 * 2**20, 5 * 2**30)] == [
        "12 bytes",
        "2 kB",
        "3 MB",
        "5 GB",
    ]
