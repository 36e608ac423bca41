"""The default exploit fits small populations, and advice about it can be followed."""

import pytest

from shoal.search.load import load_run
from tests.helpers.small_files import TOY


@pytest.fixture
def fraction(tmp_path):
    def load(*changes: str) -> float:
        (tmp_path / "run.yaml").write_text(TOY)
        return load_run(str(tmp_path / "run.yaml"), changes).population.exploit.fraction

    return load


@pytest.mark.parametrize(("members", "expected"), [(2, 0.5), (3, 0.334), (4, 0.25), (8, 0.25)])
def test_the_default_tail_is_one_member_at_least(fraction, members: int, expected: float) -> None:
    assert fraction(f"population.members={members}") == expected


def test_what_the_file_gives_stays(fraction) -> None:
    assert fraction("population.members=3", "population.exploit={kind: truncation, fraction: 0.4}") == 0.4


def test_a_number_of_the_rule_may_be_changed_alone(fraction) -> None:
    assert fraction("population.members=3", "population.exploit.fraction=0.34") == 0.34
    assert fraction("population.exploit=truncation", "population.exploit.fraction=0.5") == 0.5
