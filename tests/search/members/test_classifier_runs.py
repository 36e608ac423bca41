"""Classifiers out of a file, without Ray: the rows' facts, mixtures and choices of rows, stacks and copies."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from shoal.search.config.stages import Begin
from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.members.beginning import Beginning, begin_member
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
    write_rows(label=np.arange(300) % 3)
    with pytest.raises(InputError, match=r"settings.classes: must be above every label, but it is 2"):
        class_of(run_of("settings={classes: 2}", "data.columns.label={kind: class}"))


def write_rows(**columns: np.ndarray) -> None:
    """Write both groups with some columns changed."""
    for place, group in enumerate(("one", "two")):
        table = pq.read_table(f"{group}.parquet")
        for name, values in columns.items():
            array = pa.array(list(np.roll(values, place, axis=0)))
            at = table.schema.get_field_index(name)
            table = table.append_column(name, array) if at < 0 else table.set_column(at, name, array)
        pq.write_table(table, f"{group}.parquet")


def test_columns_of_other_units_are_scaled_each_by_itself() -> None:
    rng = np.random.default_rng(3)
    write_rows(far=rng.normal(2e8, 1e6, 300), near=rng.normal(0, 0.01, 300), same=np.full(300, 7.0))
    columns = COLUMNS.replace("{x:", "{far: number, near: number, same: number, x:")
    facts = class_of(run_of(f"data.columns={columns}")).constants["facts"]
    assert facts.inputs[:3] == ("far", "near", "same")
    assert facts.spread[:3].tolist() == pytest.approx([1e6, 0.01, 1.0], rel=0.1)
    wide = rng.normal(size=(300, 6)) * [1e6, 900, 5, 1, 0.1, 0]
    write_rows(x=wide)
    facts = class_of(run_of()).constants["facts"]
    # no number of a vector stays further spread than 1, and what hardly moves beside the others is not blown up
    assert facts.spread.tolist() == pytest.approx([1e6, 900, 5, 1, 1, 1], rel=0.15)


X, BAGS = np.random.default_rng(0).normal(size=(300, 6)), "bag: {kind: number, type: int64}, shares: "


@pytest.mark.parametrize(
    ("columns", "changes", "said"),
    [
        (
            {"x": np.where(X > 2, np.nan, X)},
            [],
            r"data\.columns\.x: must hold finite numbers of float32, but \d+ of",
        ),
        ({"x": np.where(X > 2, np.inf, X)}, [], r"rows that were looked at hold inf; leave such rows out"),
        (
            {"label": np.full(300, "b")},
            ["settings.score=auroc"],
            r"settings\.score: auroc needs validation rows of at",
        ),
        (
            {},
            ["settings={score: few_shot, shots: 200}"],
            r"settings\.score: few_shot needs validation rows of at",
        ),
        (
            {"group": np.full(300, -1)},
            ["objective=domain_heads"],
            r"settings\.group: the column group must hold a who",
        ),
        (
            {"group": np.full(300, 10**6)},
            ["objective=domain_heads"],
            r"settings\.group: each group has a head of its",
        ),
        (
            {"bag": np.arange(300) // 5, "shares": np.full((300, 3), 0.5)},
            [
                f"data.columns={COLUMNS[:-1]}, {BAGS} {{kind: tensor, shape: [3]}}}}",
                "objective=label_proportions",
            ],
            r"settings\.shares: the shares in shares must be at least 0 and sum to 1 in each row,",
        ),
        (
            {"bag": np.arange(300) // 5, "shares": np.full(300, 0.5)},
            [f"data.columns={COLUMNS[:-1]}, {BAGS} number}}", "objective=label_proportions"],
            r"settings\.shares: the column shares must hold a share of each of 3 classes",
        ),
    ],
)
def test_rows_that_no_classifier_can_look_at_are_one_line(columns, changes: list[str], said: str) -> None:
    write_rows(**columns)
    with pytest.raises(InputError, match=said) as raised:
        class_of(run_of(*changes))
    assert "\n" not in str(raised.value)


def test_images_need_a_column_of_images() -> None:
    with pytest.raises(
        InputError, match=r"settings.network: needs one column of images, .* got x of shape \[6\]"
    ):
        class_of(run_of("settings={network: conv}"))
    columns = COLUMNS.replace("shape: [6]", "shape: [1, 2, 3, 1]")
    with pytest.raises(InputError, match=r"got x of shape \[1, 2, 3, 1\]"):
        class_of(run_of("settings={network: conv}", f"data.columns={columns}"))


def test_sources_that_are_named_have_a_head_each_whatever_the_sample_holds() -> None:
    write_rows(group=np.array(["here", "there"])[np.arange(300) % 2])
    columns = COLUMNS.replace("{kind: number, type: int64}", "{kind: class, names: [here, there, away]}")
    facts = class_of(run_of("objective=domain_heads", f"data.columns={columns}")).constants["facts"]
    assert facts.groups == 3


def test_a_run_begins_with_a_network_of_another_objective() -> None:
    said = [run_of(f"objective={each}") for each in ("[cross_entropy, contrastive]", "future_teacher", "dice")]
    for before in said:
        donor = build_members(before, {0: {}}, streams=first_files)[0]
        weights = handed_out(donor.state)["weights"]
        for run in said:
            member = build_members(run, {0: {}}, streams=first_files)[0]
            begin_member(member, Beginning(weights, {}, None, {}), Begin(run="runs/before"))
            after = handed_out(member.state)["weights"]
            names = ("body.each.0.weight", "head.bias")
            assert all(np.array_equal(after[name], weights[name]) for name in names)
            assert np.isfinite(member.train(1))


def test_a_stage_of_another_network_is_refused_before_anything_trains() -> None:
    stages = "stages=[{name: one}, {name: two, change: {settings: {width: 64}}}]"
    with pytest.raises(InputError, match=r"stages\.1: change\.settings\.width: must be that of the stage"):
        load_run("run.yaml", ["kind=stages", stages])
