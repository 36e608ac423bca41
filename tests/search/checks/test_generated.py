"""Groups of generated rows: real ones stay, and a run that reads what its own past wrote is told so."""

import pytest

from shoal.search.checks.generated import note_on_own_writing
from shoal.search.errors import InputError
from shoal.search.load import load_run
from tests.search.checks.test_load import DEMO, write

GROUPS = "data.groups={code: installed, docs: installed, law: installed}"
WRITTEN = "data.generated=[law]"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["data.generated=[lau]"], "data.generated: no such group as lau; did you mean `law`"),
        (["data.real_share=0.5"], "data.real_share: needs data.generated"),
        ([WRITTEN, "data.real_share=0.7"], "0.667 of the rows at least, got 0.7; raise data.proportions"),
        (
            [WRITTEN, "data.real_share=0.5", "mixing={policy: random, floor: 0.1}"],
            "0.2 of the rows at least, got 0.5; raise mixing.floor",
        ),
    ],
)
def test_fewer_real_rows_than_asked_for_are_refused(tmp_path, changes, told) -> None:
    with pytest.raises(InputError, match=told):
        load_run(write(tmp_path, DEMO), [GROUPS, *changes])


def test_enough_real_rows_are_no_mistake(tmp_path) -> None:
    file = write(tmp_path, DEMO)
    load_run(file, [GROUPS, WRITTEN, "data.real_share=0.6"])
    load_run(file, [GROUPS, WRITTEN, "data.real_share=0.6", "mixing={policy: random, floor: 0.3}"])


def test_rows_from_the_run_that_members_begin_with_are_noted(tmp_path) -> None:
    (tmp_path / "runs/one/written").mkdir(parents=True)
    changes = [GROUPS, f"data.groups.law={tmp_path}/runs/one/written", f"begin={{run: '{tmp_path}/runs/one'}}"]
    run = load_run(write(tmp_path, DEMO), [*changes, WRITTEN])
    assert "law was written by" in note_on_own_writing(run)
    assert not note_on_own_writing(load_run(write(tmp_path, DEMO), changes))
