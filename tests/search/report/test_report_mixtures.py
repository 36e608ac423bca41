"""The report's part on mixtures: shares along the winning lineage, effects with errors, epochs."""

from pathlib import Path

import pytest
from plotly import graph_objects

from shoal.cluster.storage import Store
from shoal.search.config.run import Run
from shoal.search.load import load_run
from shoal.search.messages import GroupMixture, MixtureAccount, Row
from shoal.search.records import tables
from shoal.search.records.directory import CONTROLS
from shoal.search.report.mixtures import along_path, of_groups
from shoal.search.report.story import read_story
from shoal.search.runs.controls import controls
from tests.search.report.test_report import STEPS, Made, figures_of, make, page_of

GROUPS = ("code", "docs", "law")
ROOT = Path(__file__).parents[3]


def mix(store: Store, made: Made) -> Store:
    """Record mixtures: member m has a share of m / 10 of code in every round, the rest is shared equally."""
    make(store, made)
    for round_ in range(1, made.rounds + 1):
        rows = []
        for member in range(made.members):
            shares = [member / 10, *[(1 - member / 10) / 2] * 2]
            groups = [
                GroupMixture(
                    group,
                    share,
                    seen=100 * round_ * (1 + place),
                    rows=400,
                    effects=[0.001 * (place - 1), 0.002, 0.003],
                    errors=[0.0005, float("nan"), 0.0005],
                )
                for place, (group, share) in enumerate(zip(GROUPS, shares, strict=True))
            ]
            told = MixtureAccount(groups, "moved", round_, probe_steps=3 * round_, extra_steps=40)
            rows.append(Row(member, round_, round_ * STEPS, mixture=told))
        tables.write_mixing(store, round_, rows)
    return store


def test_shares_are_drawn_along_the_lineage_of_the_winner(tmp_path) -> None:
    story = read_story(mix(Store(str(tmp_path)), Made()))
    slots = {row["step"]: segment.member for segment in story.path for row in story.rows_of(segment)}
    assert along_path(story, "code") == [(step, pytest.approx(slot / 10)) for step, slot in slots.items()]
    assert len(slots) == 10


def test_the_page_has_shares_effects_and_epochs(tmp_path) -> None:
    store = mix(Store(str(tmp_path)), Made())
    page = page_of(store)
    figures = figures_of(page)
    heat = figures["effects"]["data"][0]
    # recorded by the trained group, drawn by the judged one: the first row is what code feels
    assert heat["z"] == [[-1.0, 0.0, 1.0], [2.0, 2.0, 2.0], [3.0, 3.0, 3.0]]
    assert heat["text"][0][0] == "-1 ± 0.5" and heat["x"] == list(GROUPS)
    assert heat["text"][1][0] == "2 ± ?"  # of one sweep or one sequence no error is known
    for name in ("effects", "mixture"):
        graph_objects.Figure(figures[name])
    assert "30 probe steps" in page and "10 evaluation passes" in page
    # 100 rows of docs a round and place: 2,000 after 10 rounds, 5 times its 400 rows
    docs = of_groups(read_story(store))[1]
    assert docs[0] == "docs" and docs[2] == "2,000" and docs[4] == "5.00"


def test_a_run_without_mixtures_has_no_such_part(tmp_path) -> None:
    assert "Proportions" not in page_of(make(Store(str(tmp_path)), Made()))


def test_each_groups_loss_stands_beside_the_one_in_equal_shares(tmp_path) -> None:
    store = mix(Store(str(tmp_path)), Made())
    make(Store(f"{tmp_path}/stratified"), Made())
    page = page_of(store)
    (equal,) = [line for line in figures_of(page)["group-0"]["data"] if "equal" in line["hovertemplate"]]
    # both were made alike, so it lies on the members' median
    (median,) = [
        line for line in figures_of(page)["group-0"]["data"] if "median, step" in line["hovertemplate"]
    ]
    assert equal["y"] == median["y"] and len(equal["y"]) == 10
    assert "Against the same members in equal shares" in page and "stratified" in figures_of(page)


def demo(*changes: str) -> Run:
    return load_run(str(ROOT / "examples/demo.yaml"), changes)


def test_a_run_that_mixes_is_judged_by_one_in_equal_shares_as_well() -> None:
    alone, equal = controls(demo())
    assert alone.population.exploit.kind == "none" and alone.mixing == demo().mixing
    assert equal.mixing is None and equal.population == demo().population
    assert [*equal.hyperparameters] == ["learning_rate", "weight_decay", "beta2"]
    assert [each.directory.rpartition("/")[2] for each in (alone, equal)] == [*CONTROLS]
    # nothing is left to vary
    rate = "hyperparameters={mixing: {rate: {kind: float, low: 0.1, high: 1}}}"
    assert controls(demo(rate))[1].population.exploit.kind == "none"
    unmixed = demo("mixing=null", "hyperparameters={beta2: {kind: float, low: 0.9, high: 0.99}}")
    assert len(controls(unmixed)) == 1
    for run in (equal, controls(demo(rate))[1]):
        assert Run.model_validate(run.model_dump(mode="json")) == run  # as workers read it
