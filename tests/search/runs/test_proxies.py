"""Runs of kind `mixture` without Ray: the design, what is proposed from a swarm's losses, and its mistakes."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from shoal.cluster.storage import Store
from shoal.policies.laws.loglinear import Law
from shoal.search.driver.start import first_state
from shoal.search.errors import InputError
from shoal.search.load import checked_run, load_run
from shoal.search.messages import Row
from shoal.search.records import tables
from shoal.search.runs.mixture import as_population, design, short_interval, with_small_model
from shoal.search.runs.proposal import confirm, dilution_table, most, proposal, proposal_table

RUN = """
name: mixture
kind: mixture
data: {groups: {code: installed, docs: installed, law: installed}}
model: {layers: 1, heads: 1, width: 8}
training: {steps: 100, batch: 8}
swarm: {runs: 20, steps: 40, draws: 10, repeats: 2}
"""
# the loss of each group falls with its own share alone: the best mixture has most of docs, least of law
WORLD = Law(np.log([1.0, 1.0, 1.0]), np.array([[-2.0, 0, 0], [0.8, -2.0, 0.8], [-1.0, -1.0, -1.5]]))
ROWS = {"code": 600, "docs": 300, "law": 100}


def load(tmp_path, *changes: str):
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    return load_run(str(path), [f"directory={tmp_path}/run", *changes])


def trained(run, name: str, mixtures, repeats: int, steps: int = 40, failed=()):
    """Return a population of the mixtures, with metrics as if it had trained in the world of the law.

    Who has `failed` did so before the last round, and so has no losses there.
    """
    made = as_population(run, name, steps, repeats, mixtures)
    shares = np.array([start.hyperparameters["mixing"]["proportions"] for start in made.starts])
    rows = [
        Row(member, 5, steps, score=-each.mean(), losses=dict(zip(ROWS, map(float, each), strict=True)))
        for member, each in enumerate(WORLD.losses(shares))
    ]
    tests = {str(row.member): row.losses for row in rows}
    for member in failed:
        rows[member] = Row(member, 5, steps)
        tests[str(member)] = {}
    store = Store(made.directory)
    tables.write_metrics(store, 5, rows)
    store.write(tables.TESTS, json.dumps(tests))
    return made


@pytest.mark.parametrize("kind", ["dirichlet", "optuna"])
def test_a_design_covers_the_simplex_and_is_the_same_each_time(tmp_path, kind: str) -> None:
    run = load(tmp_path, f"swarm.design={kind}")
    mixtures = np.array(design(run))
    assert mixtures.shape == (20, 3) and np.allclose(mixtures.sum(axis=1), 1) and (mixtures >= 0).all()
    assert np.array_equal(mixtures, design(run))
    assert len(np.unique(mixtures.round(6), axis=0)) == 20 and np.ptp(mixtures, axis=0).min() > 0.3


def test_the_swarm_is_a_population_that_reads_back_from_its_file(tmp_path) -> None:
    run = load(tmp_path)
    swarm = as_population(with_small_model(run), "swarm", 40, 1, design(run))
    assert checked_run(swarm.model_dump(mode="json"), "again") == swarm
    assert (swarm.kind, swarm.population.members, swarm.training.steps, swarm.rounds) == (
        "population",
        20,
        40,
        5,
    )
    first = first_state(swarm)[3].hyperparameters["mixing"]["proportions"]
    assert list(first) == design(run)[3].tolist()
    assert [short_interval(steps) for steps in (40, 6, 7, 9)] == [8, 2, 7, 3]


@pytest.mark.parametrize(("law", "runs"), [("log_linear", 20), ("ridge", 20), ("boosted_trees", 80)])
def test_the_proposal_is_the_worlds_best_mixture_with_the_controls_beside_it(
    tmp_path, law: str, runs: int
) -> None:
    if law == "boosted_trees":
        pytest.importorskip("lightgbm")
    run = load(tmp_path, f"swarm.law={law}", f"swarm.runs={runs}")
    found = proposal(run, ROWS, trained(run, "swarm", design(run), 1))
    candidates = np.random.default_rng(0).dirichlet(np.ones(3), 20_000)
    best = WORLD.losses(candidates).mean(axis=1).min()
    chosen = np.array(found["beside"]["proposal"]["mixture"])
    assert WORLD.losses(chosen[None]).mean() < best + (0.002 if law == "log_linear" else 0.1)
    assert (np.array(found["low"]) <= np.array(found["high"])).all()
    assert found["held_out_correlation"] > 0.9 if law == "log_linear" else True
    assert found["beside"]["proportional"]["mixture"] == pytest.approx([0.6, 0.3, 0.1])
    controls = ["stratified", "proportional", "best small run", "best single group", "random"]
    assert list(found["beside"]) == ["proposal", *controls] and found["extra_steps"] == 40 * runs
    # each group alone would end at a mean loss of 1.91, 1.50 and 2.15
    assert found["beside"]["best single group"]["mixture"] == [0, 1, 0]
    over = [found["dilution"][group]["over"] for group in ROWS]
    if law == "log_linear":
        expected = WORLD.losses(chosen[None])[0] - WORLD.losses(np.eye(3)).min(axis=0)
        assert over == pytest.approx(expected.tolist(), abs=0.02)
    assert all(told["low"] <= told["high"] for told in found["dilution"].values())
    assert dilution_table(found).row_count == 3
    mixtures = [np.array(each["mixture"]) for each in found["beside"].values()]
    confirm(found, trained(run, "confirm", mixtures, 2, steps=100), 2)
    told = found["beside"]["stratified"]
    assert told["validation"] == pytest.approx(WORLD.losses(np.full((1, 3), 1 / 3)).mean())
    assert proposal_table(found).row_count == 7


def test_runs_that_failed_are_left_out_and_counted(tmp_path) -> None:
    run = load(tmp_path)
    mixtures = design(run)
    found = proposal(run, ROWS, trained(run, "swarm", mixtures, 1, failed=(0, 7)))
    assert found["runs"] == 18
    # the law is exact, so the proposal is what all runs lead to
    whole = proposal(run, ROWS, trained(load(tmp_path, f"directory={tmp_path}/whole"), "swarm", mixtures, 1))
    ours, theirs = (np.array(each["beside"]["proposal"]["mixture"])[None] for each in (found, whole))
    assert WORLD.losses(ours).mean() == pytest.approx(WORLD.losses(theirs).mean(), abs=1e-3)
    few = load(tmp_path, f"directory={tmp_path}/few")
    with pytest.raises(InputError, match="only 4 of 20 runs went well, and 5 are needed"):
        proposal(few, ROWS, trained(few, "swarm", mixtures, 1, failed=range(16)))


def test_a_mixture_is_confirmed_by_the_seeds_that_went_well(tmp_path) -> None:
    run = load(tmp_path)
    mixtures = design(run)[:3]
    beside = {str(place): {"mixture": each.tolist(), "predicted": 0.0} for place, each in enumerate(mixtures)}
    found = {"groups": list(ROWS), "beside": beside, "low": [0.0] * 3, "high": [1.0] * 3}
    confirm(found, trained(run, "confirm", mixtures, 2, failed=(2, 4, 5)), 2)
    assert [each["seeds"] for each in beside.values()] == [2, 1, 0]
    expected = WORLD.losses(np.array(mixtures))
    assert beside["1"]["validation"] == pytest.approx(expected[1].mean())
    assert beside["1"]["test"] == pytest.approx(dict(zip(ROWS, expected[1], strict=True)))
    assert beside["2"]["validation"] is None and set(beside["2"]["test"].values()) == {None}
    json.loads(json.dumps(found), parse_constant=pytest.fail)  # NaN is no JSON
    drawn = Console(width=200, file=io.StringIO())
    drawn.print(proposal_table(found))
    assert drawn.file.getvalue().count("failed") == 2


def test_each_small_run_may_be_a_trial_of_its_own(tmp_path) -> None:
    run = load(tmp_path, "cluster.broods=20", "cluster.broods_least=12")
    swarm = as_population(with_small_model(run), "swarm", 40, 1, design(run))
    confirming = as_population(run, "confirm", 100, 2, design(run)[:4])
    assert (swarm.cluster.broods, swarm.hosts, swarm.cluster.broods_least) == (20, 20, 12)
    # eight members cannot fill twenty broods
    assert (confirming.cluster.broods, confirming.hosts, confirming.cluster.broods_least) == (8, 8, 8)
    wide = load(tmp_path, "cluster={broods: 3, workers_per_brood: 4}", f"directory={tmp_path}/wide")
    assert as_population(wide, "confirm", 100, 2, design(wide)[:4]).cluster.broods == 2
    for each in (swarm, confirming):
        assert checked_run(each.model_dump(mode="json"), "again") == each


def test_a_prior_holds_the_proposal_and_caps_bound_it(tmp_path) -> None:
    held = load(tmp_path, "swarm.strength=1000", "swarm.prior={code: 0.5, docs: 0.3, law: 0.2}")
    swarm = trained(held, "swarm", design(held), 1)
    chosen = proposal(held, ROWS, swarm)["beside"]["proposal"]["mixture"]
    assert chosen == pytest.approx([0.5, 0.3, 0.2], abs=1e-3)
    capped = load(tmp_path, "swarm.epochs=1")
    # 100 steps of 8 rows: docs may be at most 300 of 800, law 100 of 800
    assert most(capped, ROWS).tolist() == [0.75, 0.375, 0.125]
    chosen = proposal(capped, ROWS, swarm)["beside"]["proposal"]["mixture"]
    assert (np.array(chosen) <= most(capped, ROWS) + 1e-9).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("swarm.runs=4", "swarm.runs: a law of 3 groups has 4 parameters and needs at least 5 runs, got 4"),
        ("swarm.law=boosted_trees", "swarm.runs: boosted trees need 64 runs, since a leaf holds 20"),
        ("swarm.prior={cod: 1}", "swarm.prior.cod: no such group; it can be code, docs, law"),
        ("swarm.prior={code: 0.4}", "swarm.prior: proportions must sum to 1, but these sum to 0.4"),
        ("data.groups={code: installed}", "data.groups: a mixture needs at least 2 groups, got 1"),
        ("kind=population", "swarm: belongs to a run of `kind: mixture`"),
        ("mixing.policy=stratified", "kind: mixture searches fixed mixtures alone: leave out mixing"),
        ("swarm.laww=ridge", "swarm.laww: unknown key; did you mean `law`?"),
        (
            "population.interval=10",
            "population: a search for a mixture makes its own of the swarm and the controls",
        ),
        (
            "sampling.rule=infobatch",
            "sampling.rule: only members of kind: population have one, got kind mixture",
        ),
    ],
)
def test_a_mistake_is_named(tmp_path, change: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        load(tmp_path, change)
    assert said in str(error.value)


def test_the_example_of_a_search_can_be_run() -> None:
    run = load_run(str(Path(__file__).parents[3] / "examples/mixture.yaml"))
    swarm = as_population(with_small_model(run), "swarm", run.swarm.steps, 1, design(run))
    assert (swarm.population.members, swarm.hosts, swarm.rounds) == (12, 2, 5)
