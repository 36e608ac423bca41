"""A result reads a run directory: the best member, tables, figures."""

import json

import numpy as np
import pytest

import shoal
from shoal.search.front.result import table_of
from tests.helpers.directories import written


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> shoal.Result:
    place = tmp_path_factory.mktemp("result") / "run"
    written(place, 5)
    return shoal.open(place)


def test_the_best_member_has_its_score_weights_and_hyperparameters(result) -> None:
    best, rows = result.best, result.metrics.to_pylist()
    last = {row["member"]: row["score"] for row in rows if row["round"] == 5}
    assert best.member == max(last, key=last.__getitem__)
    assert best.score == last[best.member]
    assert best.step == 20
    assert set(best.hyperparameters) == {"h0", "h1"}
    assert [weight.shape for weight in best.weights.values()] == [(2,)]


def test_a_member_loads_as_what_it_trained(result) -> None:
    toy = result.best.load()
    assert toy.evaluate()[0] == pytest.approx(result.best.score)


def test_the_members_are_ranked_and_tell_their_copies(result) -> None:
    rows = result.members.to_pylist()
    assert rows[0]["member"] == result.best.member
    copies = [row for row in result.lineage.to_pylist() if row["event"] == "copy"]
    assert sum(row["copied"] for row in rows) == sum(row["was_copied"] for row in rows) == len(copies) > 0
    assert "hyperparameters.h0" in rows[0]


def test_the_schedule_begins_with_the_start_of_its_root(result) -> None:
    rows = result.schedule.to_pylist()
    starts = {
        row["member"]: json.loads(row["after"]) for row in result.lineage.to_pylist() if row["event"] == "start"
    }
    began = next(row["began_in"] for row in result.members.to_pylist())
    assert rows[0]["from_step"] == 0
    assert rows[0]["hyperparameters.h0"] == starts[began]["h0"]


def test_a_run_without_mixtures_has_an_empty_table_of_them(result) -> None:
    assert (result.mixture.num_rows, result.mixture.column_names[:2]) == (0, ["round", "step"])


def test_figures_are_plotly_figures_by_name(result) -> None:
    figures = result.figures
    assert list(figures) == ["scores", "genealogy", "schedule.h0", "schedule.h1"]
    assert all(type(each).__module__.startswith("plotly.") and each.data for each in figures.values())


def test_report_and_export_return_their_places(result, tmp_path) -> None:
    assert result.report() == f"{result.directory}/report.html"
    folder = result.export(to=tmp_path / "best")
    assert json.loads((tmp_path / "best/config.json").read_text())["member"] == result.best.member
    assert folder == str(tmp_path / "best")


def test_a_column_of_several_kinds_is_json() -> None:
    table = table_of([{"a": 1, "b": (1, 2)}, {"a": "x", "b": (3, 4)}, {"a": None, "b": None}])
    assert table["a"].to_pylist() == ["1", '"x"', "null"]
    assert table["b"].to_pylist() == [[1, 2], [3, 4], None]
    assert np.isnan(table_of([{"c": 0.5}, {"d": 1}])["c"].to_pylist()[1])


def test_what_is_no_run_directory_is_refused(tmp_path) -> None:
    with pytest.raises(shoal.InputError, match="is not a run directory"):
        shoal.open(tmp_path)
