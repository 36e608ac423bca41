"""The rows that a member's sampling policy takes for wrong ones, by their ids and with their text."""

import numpy as np
import pytest

from shoal.cluster import checkpoints
from shoal.search.corpus.build import prepare_corpus
from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.messages import Row
from shoal.search.records import directory
from shoal.search.report.left_out import rows_of_member, trained_corpus, worst_rows
from shoal.search.selection.shown import read_rows_at

ROW = Row(0, 1, 4, score=-1.0)


@pytest.fixture
def run(tmp_path):
    for group, word in (("letters", "alpha beta "), ("digits", "one two ")):
        (tmp_path / group).mkdir()
        for place in range(12):
            (tmp_path / group / f"{place}.txt").write_text(f"{place} {word}" * 30)
    (tmp_path / "run.yaml").write_text(
        f"""
name: told
directory: {tmp_path}/run
data:
  corpus: {tmp_path}/corpus
  groups: {{letters: '{tmp_path}/letters', digits: '{tmp_path}/digits'}}
  sequence_length: 32
  validation: 0.2
  test: 0.2
training: {{steps: 4, batch: 4}}
population: {{members: 2, interval: 4, exploit: none}}
sampling: {{rule: small_loss}}
"""
    )
    made = load_run(str(tmp_path / "run.yaml"), [])
    prepare_corpus(made.data, lambda line: None)
    return made


def pools(run) -> list[dict]:
    """Return pools in which the third row of each group is left out and the fifth is only looked at."""
    found = []
    for group in trained_corpus(run).groups.values():
        rows = group.splits["train"].rows
        loss = np.arange(rows, dtype=np.float32)
        loss[0] = np.nan
        keep, weight, age = np.ones(rows, bool), np.ones(rows, np.float32), np.zeros(rows, np.int16)
        keep[2], weight[4], age[2] = False, 0.0, 3
        found.append({"keep": keep, "weight": weight, "age": age, "view": {"loss": loss}})
    return found


def test_each_training_row_has_its_id_its_loss_and_whether_it_is_left_out(run) -> None:
    store = directory.create(run)
    checkpoints.save_member(store, 1, 0, {"batches": {"pools": pools(run)}})
    rows = rows_of_member(run, store, ROW)
    sizes = [group.splits["train"].rows for group in trained_corpus(run).groups.values()]
    assert rows.num_rows == sum(sizes) and min(sizes) > 5
    assert rows["group"].to_pylist() == ["letters"] * sizes[0] + ["digits"] * sizes[1]
    out = np.flatnonzero(rows["left_out"])
    assert out.tolist() == [2, 4, sizes[0] + 2, sizes[0] + 4]
    assert rows["loss"][0].as_py() is None and rows["epochs_out"][2].as_py() == 3
    worst = worst_rows(rows)
    assert worst == [4, sizes[0] + 4, 2, sizes[0] + 2]  # the largest losses come first
    read = read_rows_at(trained_corpus(run), sorted(worst))
    assert "alpha" in read[2].text and "two" in read[sizes[0] + 2].text


def test_a_run_without_a_sampling_policy_leaves_no_rows_out(run) -> None:
    plain = run.model_copy(update={"sampling": type(run.sampling)()})
    with pytest.raises(InputError, match=r"has no `sampling\.rule`"):
        rows_of_member(plain, directory.create(run), ROW)
