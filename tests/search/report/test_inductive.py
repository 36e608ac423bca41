"""The inductive bias of a finished population, from its result and in its report."""

import pytest

import shoal
from shoal.cluster.storage import Store
from shoal.policies.rules import LEFT_ALONE
from tests.helpers.directories import TOY
from tests.search.report.test_report import Made, make

EQUAL = {"dropout": {"kind": "constant", "value": 0.1}}


@pytest.fixture(scope="module")
def alike(tmp_path_factory) -> shoal.Result:
    """Twelve members that differ by chance alone."""
    place = tmp_path_factory.mktemp("alike")
    make(Store(str(place)), Made(members=12, searched=EQUAL, rules=LEFT_ALONE, groups=("code",)))
    return opened(place)


def opened(place) -> shoal.Result:
    # the synthetic file has no such sections as a run's has
    result = shoal.Result.__new__(shoal.Result)
    result.run, result._store = shoal.validate(TOY), Store(str(place))
    return result


def losses(result: shoal.Result) -> list[float]:
    return [row["loss_code"] for row in result.metrics.to_pylist() if row["round"] == 10]


def test_a_population_without_exploits_is_the_sample(alike) -> None:
    found = losses(alike)
    least, near = alike.inductive_bias(min(found)), alike.inductive_bias(sum(found) / 12)
    assert near.low <= near.nats <= near.high and near.nats < 1.2 < least.nats
    assert least == alike.inductive_bias(min(found), "loss_code")


def test_members_that_have_not_fitted_their_rows_do_not_count(alike) -> None:
    with pytest.raises(shoal.InputError, match="at least 10 errors are needed, but got 0"):
        alike.inductive_bias(1.0, fitted=0.0)
    with pytest.raises(shoal.InputError, match="no numbers called accuracy"):
        alike.inductive_bias(1.0, "accuracy")


def test_the_report_has_the_table(alike) -> None:
    page = alike._store.read(alike.report().rpartition("/")[2]).decode()
    assert "Inductive bias" in page and "95 % interval" in page and f"{min(losses(alike)):.4g}" in page


def test_members_that_copied_or_differ_are_no_sample(tmp_path) -> None:
    searched = {"learning_rate": {"kind": "float", "low": 0.0003, "high": 0.03, "log": True}}
    for name, made, told in (
        ("copied", Made(members=12, searched=EQUAL, groups=("code",)), "members copied or changed"),
        ("differ", Made(members=12, searched=searched, rules=LEFT_ALONE), "the same hyperparameters"),
        ("going", Made(members=12, searched=EQUAL, rules=LEFT_ALONE, status="running"), "must be finished"),
    ):
        make(Store(str(tmp_path / name)), made)
        result = opened(tmp_path / name)
        with pytest.raises(shoal.InputError, match=told):
            result.inductive_bias(1.0)
        assert "Inductive bias" not in result._store.read(result.report().rpartition("/")[2]).decode()
