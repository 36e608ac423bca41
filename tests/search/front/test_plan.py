"""A plan's numbers, worked by hand, and held to the network that is built."""

import pytest

import shoal
from shoal.search.front.plan import in_bytes
from tests.helpers.runs import write_texts
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


def test_an_adapter_by_hand() -> None:
    pytest.importorskip("transformers")
    from tests.helpers.pretrained import tiny_model

    run = {
        "name": "tuned",
        "trainable": "causal_lm",
        "model": {
            "path": tiny_model(),
            "adapter": {"kind": "lora", "rank": 4, "targets": ["q_proj", "v_proj"]},
        },
        "data": {"groups": {"code": "installed"}, "sequence_length": 16},
        "training": {"steps": 20, "batch": 2, "warmup": 1},
        "population": {"members": 4, "interval": 10, "exploit": "none"},
        "cluster": {"broods": 1, "workers_per_brood": 1},
    }
    (plan,) = shoal.plan(run)
    # in two layers of width 16: queries of 16, and 2 of 4 heads of values, which are 8
    assert plan.weights == 2 * (4 * (16 + 16) + 4 * (16 + 8))
    layer = 16 * 16 + 2 * 16 * 8 + 16 * 16 + 3 * 16 * 32 + 2 * 16
    whole = 260 * 16 + 2 * layer + 16
    assert plan.shared_bytes == 4 * whole
    assert plan.worker_bytes == 4 * (16 + 12) * plan.weights + plan.shared_bytes
    (all_weights,) = shoal.plan({**run, "model": {"path": tiny_model()}})
    assert (all_weights.weights, all_weights.shared_bytes) == (whole, 0)
    (cut,) = shoal.plan({**run, "model": {"path": tiny_model(), "freeze": ["model.embed*"]}})
    assert cut.weights == whole - 260 * 16
    assert cut.member_bytes == 16 * cut.weights + 4 * 260 * 16


def test_a_step_is_measured_where_it_is_asked_for(text, tmp_path) -> None:
    write_texts(tmp_path)
    changes = {
        "data.groups": {"letters": str(tmp_path / "letters"), "digits": str(tmp_path / "digits")},
        "data.corpus": str(tmp_path / "corpus"),
        "model": {"layers": 1, "heads": 2, "width": 16},
        "data.sequence_length": 16,
        "training": {"steps": 20, "batch": 2, "warmup": 1, "evaluation_rows": 2},
        "population": {"members": 6, "interval": 10},
        "cluster": {"broods": 1, "workers_per_brood": 2},
    }
    (plan,) = shoal.plan(text, changes, measure=True)
    assert plan.step_seconds is not None and plan.interval_seconds is not None
    assert 0 < 3 * 10 * plan.step_seconds < plan.interval_seconds, "three members of a worker, and their scores"
    assert "measured on this machine" in "\n".join(plan.lines())
    assert shoal.plan(text, changes)[0].step_seconds is None


def test_a_measured_class_says_how_many_weights_it_has(tmp_path) -> None:
    run = {**SETTINGS, "trainable": Still}
    (plan,) = shoal.plan(run, measure=True)
    assert plan.weights == 0 and plan.step_seconds is not None


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


def test_a_super_network_and_its_teacher_are_those_that_are_made(tmp_path) -> None:
    pytest.importorskip("transformers")
    from tests.helpers.distillation import networks, save_teacher, write_run

    (tmp_path / "teacher").mkdir()
    run = shoal.validate(write_run(tmp_path, save_teacher(tmp_path / "teacher")))
    (plan,) = shoal.plan(run)
    made = networks(run)
    sizes = [sum(weight.numel() for weight in member.module.parameters()) for member in made.values()]
    assert plan.weights == max(sizes) > min(sizes)
    origin = made[0].origin
    assert plan.shared_bytes == 4 * sum(weight.numel() for weight in origin.parameters())
