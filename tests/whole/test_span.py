"""A member over two workers is the member on one, to float tolerance: alone, after a copy, after a resume."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from shoal.search.load import load_run
from shoal.search.records import directory
from shoal.search.records.last import member_of
from tests.helpers.members import language, supernet
from tests.helpers.runs import ROOT, events, scores, shoal, small_run, start, wait_for_round
from tests.helpers.span import EMBEDDERS, RULES, embedded, experts, hidden, mixing, outcome, sampled, thin


@pytest.fixture(scope="module")
def spanned(tmp_path_factory) -> dict[str, dict[str, list]]:
    """What two processes said of their members."""
    meeting = tmp_path_factory.mktemp("span") / "meeting"
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.span", str(meeting), str(rank)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "SAY": "" if rank else "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=480)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    return json.loads(said[0].splitlines()[-1])


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_workers_train_as_one_and_hand_over_as_one(spanned, kind: str) -> None:
    torch.set_num_threads(1)
    first, second = language(1, learning_rate=0.01), language(2, learning_rate=0.02)
    losses = [first.train(3), second.train(2)]
    second.load(first.state(), {"learning_rate": 0.01})
    losses += [first.train(4), second.train(4)]
    assert np.allclose(spanned[kind]["losses"], losses, rtol=0, atol=1e-5)
    assert losses[2] == losses[3]
    assert np.allclose(spanned[kind]["scores"], [first.evaluate()[0], second.evaluate()[0]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_masks_over_two_workers_are_those_on_one(spanned, kind: str) -> None:
    torch.set_num_threads(1)
    over, alone = spanned[kind]["thin"], thin(spread=False, sharded=False)
    assert np.allclose(over["losses"], alone["losses"], rtol=0, atol=1e-5)
    assert over["score"] == pytest.approx(alone["score"], abs=1e-5) and over["there"] == alone["there"]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_tokens_are_hidden_over_two_workers_too(spanned, kind: str) -> None:
    """A score is that of one process; in training each worker hides tokens of its own rows by its own draws."""
    torch.set_num_threads(1)
    over, alone = spanned[kind]["hidden"], hidden(spread=False, sharded=False)
    assert over["scores"][0] == pytest.approx(alone["scores"][0], abs=1e-5)
    assert over["losses"] == pytest.approx(spanned["ddp"]["hidden"]["losses"], abs=1e-5)
    assert over["scores"][1] == pytest.approx(spanned["ddp"]["hidden"]["scores"][1], abs=1e-5)
    assert over["losses"] == pytest.approx(alone["losses"], abs=0.5)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_experts_over_two_workers_are_those_on_one(spanned, kind: str) -> None:
    torch.set_num_threads(1)
    over, alone = spanned[kind]["experts"], experts(spread=False, sharded=False)
    assert np.allclose(over["losses"], alone["losses"], rtol=0, atol=1e-5)
    assert np.allclose(over["scores"], alone["scores"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["aioli", "ado"])
def test_a_mixture_over_two_workers_is_that_on_one(spanned, kind: str, name: str) -> None:
    torch.set_num_threads(1)
    over, alone = spanned[kind]["mixed"][name], outcome(mixing(name))
    assert over["seen"] == alone["seen"]
    assert np.allclose(over["losses"], alone["losses"], rtol=0, atol=1e-4)
    # by validation losses, and by the training losses of rows that lay on either worker
    assert np.allclose(over["shares"], alone["shares"], rtol=0, atol=1e-3)
    assert np.allclose(over["last"], alone["last"], rtol=0, atol=1e-4)


def test_what_travels_is_whole_with_ddp_and_a_share_with_fsdp(spanned) -> None:
    whole = [list(weight.shape) for weight in language(1).state()["weights"].values()]
    assert spanned["ddp"]["shapes"] == whole
    # the first axis is cut; of 31 tokens the first worker has 16
    assert spanned["fsdp"]["shapes"] == [[(length + 1) // 2, *rest] for length, *rest in whole]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", list(RULES))
def test_rows_are_weighed_and_chosen_by_the_losses_of_all_workers(spanned, kind: str, name: str) -> None:
    """LinUpper's least and largest loss are those of the whole batch, and both workers keep the same rows."""
    torch.set_num_threads(1)
    alone, over = sampled(RULES[name], False, False), spanned["sampled"][kind][name]
    assert over["kept"] == alone["kept"]
    for part in ("losses", "last"):
        assert np.allclose(over[part], alone[part], rtol=0, atol=1e-4), part
    assert over["score"] == pytest.approx(alone["score"], abs=1e-5)
    assert name == "lin_upper" or not all(alone["kept"])


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", EMBEDDERS)
def test_queries_have_the_rows_of_all_workers_as_negatives(spanned, kind: str, name: str) -> None:
    """Loss, gradient and the objective's memory are those of one process that has the whole batch."""
    torch.set_num_threads(1)
    over, alone = spanned["embedder"][kind][name], embedded(name, False, False)
    assert over["gradients"].keys() == alone["gradients"].keys()
    for part in ("gradients", "memory"):
        for each, values in alone[part].items():
            assert np.allclose(over[part][each], values, rtol=0, atol=1e-5), each
    assert np.allclose(over["losses"], alone["losses"], rtol=0, atol=1e-5)
    assert over["score"] == pytest.approx(alone["score"], abs=1e-5)


def test_a_super_network_over_two_workers_trains_as_one_on_the_same_parts(spanned) -> None:
    torch.set_num_threads(1)
    member = supernet(1, learning_rate=0.01)
    losses = [member.train(3), member.train(2)]
    said = spanned["distill"]
    assert len(said["chosen"][0]) == 5 * 4 and said["chosen"][0] == said["chosen"][1]
    assert np.allclose(said["losses"], losses, rtol=0, atol=1e-5)
    assert said["scores"] == pytest.approx([member.evaluate()[0]], abs=1e-5)


UNMIXED = (
    "mixing=null",
    "hyperparameters={learning_rate: {kind: float, low: 0.0003, high: 0.03, log: true}}",
)


def changes(span: str) -> tuple[str, ...]:
    return (
        f"cluster={{broods: 2, workers_per_member: 2, span: {span}, cpus_per_worker: 0.3}}",
        "training.dropout=0",
    )


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("span", "rule"), [("ddp", "lin_upper"), ("fsdp", "null")])
def test_members_over_workers_decide_as_those_on_one_and_resume(texts, tmp_path, span: str, rule: str) -> None:
    alone, over, unmixed = tmp_path / "alone", tmp_path / "over", (*UNMIXED, f"sampling.rule={rule}")
    shoal("run", *small_run(texts, alone), *unmixed, "training.dropout=0", "cluster.threads_per_worker=1")
    process = start("run", *small_run(texts, over), *unmixed, *changes(span))
    wait_for_round(over, 3, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=240)
    shoal("resume", str(over))
    copies = [event for event in events(over) if event.parent is not None]
    assert [(event.round, event.member, event.parent) for event in copies] == [
        (event.round, event.member, event.parent) for event in events(alone) if event.parent is not None
    ]
    assert {event.member % 2 == event.parent % 2 for event in copies} == {
        True,
        False,
    }  # within and between broods
    ours, theirs = scores(over), scores(alone)
    assert np.allclose([row[2] for row in ours], [row[2] for row in theirs], rtol=0, atol=1e-4)
    weights = [
        directory.whole_weights(run, store, member_of(run, store, 0))
        for run, store in (directory.open_run(str(place)) for place in (alone, over))
    ]
    assert all(np.allclose(weights[0][name], weights[1][name], atol=1e-3) for name in weights[0])


@pytest.mark.parametrize(
    ("cluster", "hosts", "workers"),
    [
        ("{broods: 1, members_per_worker: 4}", 2, 2),
        ("{broods: 2, members_per_worker: 2}", 4, 2),
        ("{broods: 2, workers_per_member: 2}", 2, 2),
        ("{broods: 1, members_per_worker: 3, workers_per_member: 2}", 3, 6),
        ("{broods: 1, workers_per_brood: 4, workers_per_member: 2}", 2, 4),
        ("{broods: 2}", 2, 1),
    ],
)
def test_keys_that_size_a_population(cluster: str, hosts: int, workers: int) -> None:
    run = load_run(str(Path(ROOT) / "examples/demo.yaml"), [f"cluster={cluster}"])
    assert (run.hosts, run.workers_per_brood) == (hosts, workers)
