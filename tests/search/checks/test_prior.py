"""A prior in a run's file: its price, its mistakes, and the coded size in the records of a run."""

import json

import numpy as np
import pytest

from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from shoal.search.checks.prior import check_prior
from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.records import directory
from shoal.search.report.write import write_report
from tests.helpers.directories import written
from tests.helpers.runs import TOY
from tests.search.checks.test_load import DEMO, write

PRIOR = "hyperparameters.prior={kind: float, low: 0.001, high: 1.0, log: true}"


def test_a_searched_prior_has_a_price_a_part_or_is_a_constant(tmp_path) -> None:
    """Gate G10."""
    file = write(tmp_path, DEMO)
    with pytest.raises(InputError, match="trades loss for cost") as raised:
        load_run(file, [PRIOR])
    said = str(raised.value)
    assert "population.parts: {prior: [...]}" in said and "price: 0.1" in said and "(training.prior)" in said
    for changes in ([PRIOR, "price=0.1"], ["training.prior=0.1"], ["population.parts={prior: [0.0, 0.1]}"]):
        assert directory.uses_prior(load_run(file, changes))
    assert not directory.uses_prior(load_run(file))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["training.prior=-1"], "training.prior: must be at least 0"),
        (["training.prior_start=0.01"], "training.prior_start: must be at least 0.1"),
        (
            ["hyperparameters.prior_shape={kind: float, low: 0.5, high: 2}"],
            "hyperparameters.prior_shape: is that of a prior, and training.prior is 0",
        ),
        (
            ["training.prior=0.1", "cluster={span: fsdp, workers_per_member: 2, workers_per_brood: 2}"],
            "training.prior: needs whole matrices",
        ),
    ],
)
def test_what_cannot_be(tmp_path, changes, told) -> None:
    with pytest.raises(InputError, match=told):
        load_run(write(tmp_path, DEMO), changes)


def test_a_pretrained_model_is_not_drawn() -> None:
    run = load_run(TOY)
    drawn = run.model_copy(
        update={"trainable": "causal_lm", "training": run.training.model_copy(update={"prior_start": 1.0})}
    )
    assert "weights of a pretrained model are not drawn, got 1" in check_prior(drawn)


def test_the_export_and_the_report_have_the_coded_size(tmp_path) -> None:
    run = written(tmp_path, 5)
    store = Store(str(tmp_path))
    last = checkpoints.latest(store, range(run.population.members))
    rng = np.random.default_rng(0)
    for member in range(run.population.members):  # the toy's two weights are no matrix
        state = checkpoints.load_member(store, last, member)
        state["weights"] = {"w": rng.laplace(size=(40, 50))}
        checkpoints.save_member(store, last, member, state)
    run = run.model_copy(update={"training": run.training.model_copy(update={"prior": 0.1})})
    directory.note_coded_size(run, store)
    told = json.loads(store.read("summary.json"))["coded"]
    assert told["weights"] == 2000 and 3.5 < told["entropy"] < told["bits"] < 6
    write_report(store)
    assert "Coded size" in store.read("report.html").decode()
    directory.export_member(run, store)
    assert json.loads(store.read("best/config.json"))["coded"] == told
