"""Weights that go from one worker's memory to another's, without the object store."""

from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from shoal.cluster import mailbox
from shoal.policies.population import Order
from shoal.search.worker import brood
from shoal.search.worker.teams import Team
from shoal.trainables.toy import Toy
from tests.helpers.members import language
from tests.helpers.runs import events, members, same_weights, scores, shoal, small_run


def test_what_is_on_a_cpu_goes_so_only_when_asked(monkeypatch) -> None:
    tried = []
    put = SimpleNamespace(
        put=lambda sample, _tensor_transport: tried.append((sample.numel(), _tensor_transport))
    )
    monkeypatch.setattr(mailbox, "ray", put)
    assert not mailbox.direct_way(torch.zeros(1), None) and not mailbox.direct_way(torch.zeros(1), False)
    assert not tried
    assert mailbox.direct_way(torch.zeros(1), True) and tried == [(1, "nixl")]


def test_where_it_is_not_to_be_had_the_store_stands_in_or_the_run_says_why(monkeypatch) -> None:
    def refuse(sample, _tensor_transport):
        raise ModuleNotFoundError("No module named 'nixl'")

    monkeypatch.setattr(mailbox, "ray", SimpleNamespace(put=refuse))
    # `meta` stands for a GPU: a device that is not the CPU
    assert not mailbox.direct_way(torch.zeros(1, device="meta"), None)
    with pytest.raises(
        RuntimeError, match=r"cluster.direct: needs NIXL .* shoal\[direct\].*No module named 'nixl'"
    ):
        mailbox.direct_way(torch.zeros(1), True)


def test_only_tensors_go_straight(monkeypatch) -> None:
    sent = {}
    monkeypatch.setattr(
        mailbox, "post_weights", lambda e, key, state, direct: sent.update({key[1]: (state, direct)})
    )
    here = {0: Toy({"h0": 0.1, "h1": 0.5}), 1: language(1)}
    found = [Team({number: member}) for number, member in here.items()]
    brood.follow(None, 1, [Order(8, 0, {}), Order(9, 1, {})], found, direct=True)
    assert sent[0][1] is False and isinstance(sent[0][0]["weights"]["place"], np.ndarray)
    assert sent[1][1] is True and all(isinstance(each, torch.Tensor) for each in sent[1][0]["weights"].values())


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(find_spec("nixl") is None, reason="needs the extra `direct`")
def test_a_run_decides_and_ends_as_by_the_object_store(texts, tmp_path) -> None:
    cluster = "{{broods: 2, workers_per_brood: 1, cpus_per_worker: 0.6, stack: false, direct: {}}}"
    for name in ("true", "false"):
        shoal("run", *small_run(texts, tmp_path / name), f"cluster={cluster.format(name)}")
    straight, stored = tmp_path / "true", tmp_path / "false"
    assert events(straight) == events(stored)
    assert any(event.parent is not None and event.parent % 2 != event.member % 2 for event in events(straight))
    assert np.array_equal(scores(straight), scores(stored))
    assert same_weights(members(straight, 4), members(stored, 4))
