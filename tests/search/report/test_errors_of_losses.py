"""Standard errors of test losses stand beside them, in the report and in the comparison of controls."""

import io

import pytest
from rich.console import Console

from shoal.search.load import load_run
from shoal.search.report.measures import errors_of
from shoal.search.report.wording import with_error
from shoal.search.runs.closing import compare_with_controls
from tests.helpers.small_files import TEXT


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [(2.5, 0.125, "2.5000 ± 0.1250"), (2.5, None, "2.5000"), (2.5, float("nan"), "2.5000"), (None, 0.1, "")],
)
def test_an_error_stands_behind_its_number_where_it_is_known(value, error, said) -> None:
    assert with_error(value, error) == said


def test_errors_have_the_names_of_what_they_belong_to() -> None:
    assert errors_of({"test_error": {"code": 0.1}}) == {"loss, code": 0.1} and errors_of({}) == {}


def test_the_comparison_of_controls_shows_them(tmp_path) -> None:
    (tmp_path / "run.yaml").write_text(TEXT)
    run = load_run(str(tmp_path / "run.yaml"))
    plain = {"best_score": -2.0, "exploits": 3, "wall_seconds": 9.0, "test_loss": {"code": 2.25, "more": 2.5}}
    older = dict(plain)  # of a version that wrote no errors
    table = compare_with_controls(run, plain | {"test_error": {"code": 0.0625}}, {"baseline": older})
    shown = io.StringIO()
    Console(file=shown, width=120).print(table)
    (line,) = [line for line in shown.getvalue().splitlines() if "test loss, code" in line]
    assert line.split() == ["test", "loss,", "code", "2.2500", "±", "0.0625", "2.2500"]
