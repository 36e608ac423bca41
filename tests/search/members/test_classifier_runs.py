"""Classifiers out of a file, without Ray: the rows' facts, mixtures and choices of rows, stacks and copies."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.members.build import build_members
from shoal.search.members.classes import class_of
from shoal.search.runs.dry import first_files, try_out
from shoal.search.runs.population import prepare_run
from shoal.search.worker.teams import teams
from shoal.trainables.handover import hand_in, handed_out
from tests.search.checks.test_objective import FILE
from tests.search.members.test_mixed import same

QUIET = Console(file=io.StringIO())
COLUMNS = "{x: {kind: tensor, shape: [6]}, group: {kind: number, type: int64}, "
COLUMNS += "unlabelled: {kind: number, type: bool}, label: {kind: class, names: [a, b, c]}}"
BOTH = [
    "objective=[cross_entropy, {kind: contrastive, temperature: 0.5}]",
    "mixing.policy=aioli",
    "sampling.rule=infobatch",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(FILE)
    rng = np.random.default_rng(0)
    centres = 5 + 3 * rng.normal(size=(3, 6))
    for place, group in enumerate(("one", "two")):
        label = rng.choice(3, 300, p=[0.7, 0.2, 0.1])
        x = (centres[label] + rng.normal(size=(300, 6))).astype(np.float32)
        found = {
            "x": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), 6),
            "group": np.full(300, place),
            "unlabelled": rng.random(300) < 0.3,
            "label": np.array(["a", "b", "c"])[label],
        }
        pq.write_table(pa.table(found), f"{group}.parquet")


def run_of(*changes: str):
    given = [f"data.columns={COLUMNS}", "training={steps: 40, batch: 16, evaluation_rows: 30}", *changes]
    return prepare_run(load_run("run.yaml", given), QUIET)


def test_the_facts_are_those_of_the_training_rows() -> None:
    facts = class_of(run_of("objective=domain_heads")).constants["facts"]
    assert (facts.inputs, facts.classes, facts.groups, facts.rows) == (("x",), 3, 2, 16)
    assert facts.prior.tolist() == pytest.approx([0.7, 0.2, 0.1], abs=0.08)
    assert facts.centre.shape == (6,) and 2 < facts.centre.mean() < 8


@pytest.mark.parametrize("objective", ["shrunk_classes", "domain_heads", "worst_rows"])
def test_a_classifier_is_tried_from_a_file(objective: str) -> None:
    said = io.StringIO()
    try_out(run_of(f"objective={objective}"), Console(file=said, width=300))
    assert "it trains on as its donor does" in said.getvalue()
    assert "accuracy_one" in said.getvalue() and "macro_f1" in said.getvalue()


@pytest.mark.parametrize("change", ["objective=future_teacher", "sampling={rule: storm}"])
def test_what_takes_several_passes_goes_on_as_its_donor_does(change: str) -> None:
    run = run_of(change)
    made = build_members(run, {0: {}, 1: {}}, streams=first_files)
    made[0].train(4)
    hand_in(made[1].load, handed_out(made[0].state), {})
    assert made[0].train(4) == made[1].train(4)
    assert same(handed_out(made[0].state), handed_out(made[1].state))


@pytest.mark.parametrize("named", ["density:Density", "sparse_code:SparseCode", "consistency:Consistency"])
def test_a_trainable_for_a_special_end_is_tried_from_a_file(named: str) -> None:
    said = io.StringIO()
    changes = [f"trainable=shoal.trainables.tasks.{named}", "settings={features: 6}"]
    try_out(run_of(*changes), Console(file=said, width=300))
    assert "it trains on as its donor does" in said.getvalue()


def test_mixed_and_sampled_classifiers_train_stacked_and_a_copy_goes_on_bit_for_bit() -> None:
    run = run_of(*BOTH)
    chosen = {place: {"objective": {"contrastive": {"temperature": 0.3 + place}}} for place in range(3)}
    made = build_members(run, chosen, streams=first_files)
    [team] = teams({place: made[place] for place in (0, 1)}, stack=True)
    team.train(20)
    copies = build_members(run, chosen, streams=first_files)
    hand_in(copies[2].load, handed_out(made[0].state), chosen[0])
    assert made[0].train(10) == copies[2].train(10)
    assert same(handed_out(made[0].state), handed_out(copies[2].state))
    assert made[0].evaluate()[0] > 0.8


def test_labels_above_the_classes_are_refused() -> None:
    with pytest.raises(InputError, match=r"settings.classes: must be above every label, but it is 2"):
        class_of(run_of("settings={classes: 2}"))


def test_images_need_a_column_of_images() -> None:
    with pytest.raises(InputError, match=r"settings.network: needs one column of images, got x"):
        class_of(run_of("settings={network: conv}"))
