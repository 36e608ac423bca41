"""TensorBoard's own reader finds in its event files what a run records."""

from pathlib import Path

import pytest

from shoal.cluster.storage import Store
from shoal.search.config.tracking import TensorBoard
from shoal.search.load import load_run
from shoal.search.records import tables
from shoal.search.track.again import track_again
from shoal.search.track.tensorboard import EventFiles
from shoal.search.track.watching import Tracking
from tests.helpers.directories import TOY, written

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def reader(folder: Path):
    found = accumulator.EventAccumulator(str(folder), size_guidance={accumulator.SCALARS: 0})
    found.Reload()
    return found


def scalars(folder: Path, name: str) -> dict[int, float]:
    return {each.step: each.value for each in reader(folder).Scalars(name)}


def recorded(run) -> dict[int, dict[int, float]]:
    """Return member -> step -> score, of the run's own table."""
    found: dict[int, dict[int, float]] = {}
    for each in Store(run.directory).read_table("metrics.parquet").to_pylist():
        found.setdefault(each["member"], {})[each["step"]] = pytest.approx(each["score"])
    return found


def track(run, *parts: int) -> list[str]:
    said: list[str] = []
    with Tracking(run, Store(run.directory), said.append) as tracking:
        for part in parts:
            tracking.recorded(part)
    return said


@pytest.fixture
def run(tmp_path):
    return written(tmp_path / "run", 5, "track=tensorboard")


def test_each_member_is_a_run_with_its_scores_and_hyperparameters(run) -> None:
    assert track(run, 1, 2, 3, 4, 5) == []
    for member, scores in recorded(run).items():
        folder = Path(run.directory, f"tensorboard/member-{member:05d}")
        assert scalars(folder, "score") == scores
    events = tables.read_table_rows(Store(run.directory), "lineage.parquet")
    copy = next(each for each in events if each["event"] == "copy")
    folder = Path(run.directory, f"tensorboard/member-{copy['member']:05d}")
    told = {each.step: each for each in reader(folder).Tensors("copy/text_summary")}
    assert f"from member {copy['parent']}" in str(told[copy["step"]].tensor_proto.string_val)
    rates = scalars(folder, "hyperparameters/h0")
    assert rates[copy["step"]] != rates[copy["step"] + run.population.interval]  # it changes after the copy


def test_a_resumed_run_hides_what_it_writes_again(run) -> None:
    track(run, 1, 2, 3)
    assert track(run, 3, 4) == []  # the run went back to round 2
    folder = Path(run.directory, "tensorboard/member-00000")
    assert [each.step for each in reader(folder).Scalars("score")] == [4, 8, 12, 16]


def test_a_finished_run_is_sent_from_its_records(tmp_path) -> None:
    run = written(tmp_path / "run", 5)
    for anew in (False, True):
        places = track_again(run, Store(run.directory), anew=anew)
        assert places == [f"tensorboard: {tmp_path}/run/tensorboard"]
        assert scalars(tmp_path / "run/tensorboard/member-00002", "score") == recorded(run)[2]


def test_a_folder_that_was_deleted_is_written_again(run) -> None:
    track(run, 1, 2, 3, 4, 5)
    import shutil

    shutil.rmtree(f"{run.directory}/tensorboard")
    track_again(run, Store(run.directory))
    assert scalars(Path(run.directory, "tensorboard/member-00000"), "score") == recorded(run)[0]


@pytest.mark.parametrize("part", ["", "/baseline", "/replay/3", "/swarm"])
def test_runs_within_a_run_have_folders_of_their_own(tmp_path, part: str) -> None:
    run = load_run(TOY, [f"directory={tmp_path}/run{part}"])
    given = TensorBoard(kind="tensorboard", directory=f"{tmp_path}/logs")
    assert EventFiles(run, given, "").folder == f"{tmp_path}/logs{part}"
