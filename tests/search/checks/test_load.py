"""Every mistake in a file is one line that names the file, the key, the value and what is allowed."""

import pytest
import yaml

from shoal.policies.exploit import NoExploit, Tournament
from shoal.policies.halving import Cull
from shoal.policies.rules import Rules
from shoal.policies.sampling.dynamic import Extremes
from shoal.policies.sampling.infobatch import InfoBatch
from shoal.policies.space import Bool, Categorical, Constant, Float, Int, Ordered
from shoal.search.checks.sampling import note_on_epochs
from shoal.search.errors import InputError
from shoal.search.load import checked_run, dump, load_run

DEMO = """
name: demo
data:
  groups: {code: installed}
hyperparameters:
  learning_rate: {kind: float, low: 1e-4, high: 1e-2, log: true}
"""


def write(tmp_path, text: str) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return str(path)


def test_a_short_file_is_resolved_with_defaults_and_absolute_places(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = load_run(write(tmp_path, DEMO), ["population.members=4", "seed=7"])
    assert (run.population.members, run.seed, run.rounds) == (4, 7, 10)
    assert run.space() == {"learning_rate": Float(1e-4, 1e-2, log=True)}
    assert run.directory == f"{tmp_path}/runs/demo" and run.data.corpus == f"{tmp_path}/runs/corpus"


def test_a_resolved_run_reads_back_equal(tmp_path) -> None:
    changes = [
        "hyperparameters.warmup={kind: int, low: 1, high: 30}",
        "hyperparameters.beta2={kind: ordered, values: [0.9, 0.99]}",
    ]
    run = load_run(write(tmp_path, DEMO), changes)
    assert run.space()["warmup"] == Int(1, 30) and run.space()["beta2"] == Ordered((0.9, 0.99))
    assert checked_run(yaml.safe_load(dump(run)), "run.yaml") == run


def test_a_rule_by_losses_is_said_to_keep_all_rows_of_a_run_without_a_second_epoch(tmp_path) -> None:
    changes = ["sampling.rule=infobatch", "training.steps=200", "training.batch=8"]
    groups = ["data.groups={code: installed, docs: installed}", "data.proportions={code: 3, docs: 1}"]
    run = load_run(write(tmp_path, DEMO), [*changes, *groups])
    # 1600 rows: 1200 of code and 400 of docs
    assert "200 steps of 8 rows end within the first epoch" in note_on_epochs(run, {"code": 1200, "docs": 400})
    assert note_on_epochs(run, {"code": 1199, "docs": 400}) == ""
    assert note_on_epochs(run, {"code": 1200, "docs": 399}) == ""
    drawn = load_run(write(tmp_path, DEMO), [*changes, *groups, "sampling.rule=random_subset"])
    assert note_on_epochs(drawn, {"code": 1200, "docs": 400}) == ""


def test_a_sampling_rule_is_named_by_a_word_or_with_its_settings(tmp_path) -> None:
    run = load_run(write(tmp_path, DEMO), ["sampling.rule=infobatch"])
    assert run.sampling.rule.build() == InfoBatch() and run.sampling.view == "member"
    run = load_run(write(tmp_path, DEMO), ["sampling.rule={kind: extremes, temperature: 0.4}"])
    assert run.sampling.rule.build() == Extremes(0.4)
    assert checked_run(yaml.safe_load(dump(run)), "run.yaml") == run


def test_what_sampling_does_not_go_with_is_refused(tmp_path) -> None:
    brood = "sampling={rule: seta, view: brood}"
    for changes, said in (
        ([brood, "population.mode=asynchronous"], "brood needs population.mode: synchronous"),
        (["sampling.rule=seta", "trainable=toy"], "the toy has no rows"),
    ):
        with pytest.raises(InputError) as raised:
            load_run(write(tmp_path, DEMO), changes)
        assert said in str(raised.value)


@pytest.mark.parametrize("exploit", ["fire", "{kind: multiple_frequency, frequencies: [1, 2]}"])
def test_rules_that_decide_about_parts_at_once_need_rounds(tmp_path, exploit) -> None:
    changes = [f"population.exploit={exploit}", "population.members=12"]
    assert load_run(write(tmp_path, DEMO), changes).population.exploit.kind in exploit
    with pytest.raises(InputError, match=r"decides about whole parts .* needs population.mode: synchronous"):
        load_run(write(tmp_path, DEMO), [*changes, "population.mode=asynchronous"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("population.member=3", "population.member: unknown key; did you mean `members`?"),
        ("populaton.members=3", "populaton: unknown key; did you mean `population`?"),
        ("training.batch=-1", "training.batch: must be greater than or equal to 1, got -1"),
        ("training.steps=many", "training.steps: must be a whole number"),
        ("population=5", "population: must be a mapping of keys, got 5"),
        (
            "population.exploit={kind: truncation, fraction: 0.7}",
            "population.exploit.fraction: must be in (0, 0.5], but got 0.7",
        ),
        ("population.exploit=best", "population.exploit.kind: must be one of truncation, t_test, tournament"),
        ("sampling.rule=best", "sampling.rule.kind: must be one of random_subset, seta, infobatch, lin_upper"),
        (
            "sampling.rule={kind: seta, window: 11}",
            "sampling.rule.window: must be 1 to groups (10)",
        ),
        (
            "sampling.rule={kind: lin_upper, burn_in: 4000}",
            "sampling.rule.burn_in: must be less than training.steps (",
        ),
        ("sampling.rule={kind: seta, widow: 3}", "sampling.rule.widow: unknown key; did you mean `window`?"),
        ("sampling.view=brood", "sampling.view: needs sampling.rule"),
        ("sampling.scorer=runs/demo/best", "sampling.scorer: needs sampling.rule"),
        ("sampling.rule=easy_to_hard", "sampling.scorer: easy_to_hard goes by scores; name an exported model"),
        (
            "sampling={rule: seta, scorer: runs/demo/best}",
            "sampling.scorer: serves rules that go by scores, got",
        ),
        ("sampling={rule: random_subset, view: brood}", "sampling.view: the brood's losses serve rules"),
        ("population.members=1", "exploit needs at least 2 members, got 1"),
        (
            "population={members: 3, exploit: {kind: truncation, fraction: 0.25}}",
            "0.25 of 3 members is less than one member",
        ),
        ("population.interval=1000", "population.interval: must be at most training.steps (200), got 1000"),
        ("population.interval=30", "must divide training.steps (200), got 30; 180 steps would do"),
        (
            "population.exploit={kind: multiple_frequency, frequencies: [1, 10, 25]}",
            "population.exploit.frequencies: each of 3 needs 4 members",
        ),
        (
            "population.exploit={kind: multiple_frequency, frequencies: [1, 10]}",
            "a part that evolves at every 10th decision never does in the 9 decisions of 200 steps",
        ),
        (
            "population.exploit={kind: tournament, rivals: 0}",
            "population.exploit.rivals: must be at least 1, but got 0",
        ),
        ("population.exploit={kind: truncation, fraction: 0}", "fraction: must be in (0, 0.5], but got 0"),
        ("population.explore=jump", "population.explore.kind: must be one of perturb, resample"),
        (
            "population.explore={kind: perturb, factors: [1.2, 0.8]}",
            "explore.factors: must be one below and one above 1",
        ),
        ("population.age_window=-1", "population.age_window: must be greater than or equal to 0, got -1"),
        ("population.burn_in=200", "population.burn_in: must be less than training.steps (200)"),
        ("population.cull={grace: 200}", "population.cull.grace: must be less than training.steps (200)"),
        ("population.cull={grace: 20, reduction: 1}", "population.cull.reduction: must be above 1, but got 1"),
        ("population.exploit=fire", "population.exploit: fire needs 12 members"),
        ("population.least=9", "population.least: must be at most population.members (8), got 9"),
        ("kind=fleet", "kind: must be one of population"),
        (
            "trainable=my model",
            "must be decoder, causal_lm, preference, classifier, embedder, toy, or a class of your own",
        ),
        ("trainable=nowhere_at_all:Model", "trainable: no module `nowhere_at_all` in "),
        ("trainable=json:Model", "trainable: json must have a class or function `Model`, but has none"),
        (
            "schedule=[{from_step: 0, hyperparameters: {clip: 0.5}}]",
            "schedule: stands in place of hyperparameters, and needs population.exploit: none",
        ),
        ("cluster.broods=9", "cluster.broods: 9 workers"),
        (
            "cluster={compile: true, stack: false}",
            "cluster.compile: compiles stacks of members, and cluster.stack",
        ),
        (
            "cluster={compile: true, broods: 1, workers_per_member: 2}",
            "cluster.compile: compiles stacks of members",
        ),
        ("hyperparameters.learning_rate.low=1", "low < high must hold, but got low=1.0, high=0.01"),
        ("hyperparameters.learning_rate.low=0", "log domain needs low > 0"),
        ("hyperparameters.learning_rate.kind=flat", "learning_rate.kind: must be one of float, int"),
        ("hyperparameters.learning_rate.lo=1", "learning_rate.lo: unknown key; did you mean `low`?"),
        ("hyperparameters.learning_rat={kind: bool}", "no such hyperparameter; did you mean `learning_rate`?"),
        ("hyperparameters={}", "exploit needs at least one to vary"),
        ("data.proportions.cod=1", "data.proportions.cod: no such group"),
        ("data.proportions.code=0", "at least one must be above 0"),
        (
            "data={groups: {a: x, b: y}, proportions: {a: 3}}",
            "must name all groups or none, but b has no share",
        ),
        ("data.groups.more=[x, y]", "data.groups.more: must be one place, got ['x', 'y']; a glob stands for"),
        ("data.groups={}", "data.groups: at least one group"),
        ("model.heads=3", "width / heads must be a whole even number"),
        ("name=a/b", "name: must be letters, digits"),
        ("format=3", "written by a newer Shoal"),
        ("seed=-1", "seed: must be greater than or equal to 0, got -1"),
        ("seed", "a change must be written key=value"),
    ],
)
def test_a_mistake_is_named(tmp_path, change: str, said: str) -> None:
    with pytest.raises(InputError) as raised:
        load_run(write(tmp_path, DEMO), [change])
    assert said in str(raised.value)


NEST = """
name: nest
trainable: tests.helpers.members:own_points
hyperparameters:
  rate: {kind: float, low: 1e-4, high: 1.0, log: true}
  inner:
    kind: {kind: categorical, values: [a, b]}
    deep: {seed: {kind: constant, value: {a: 1}}, wide: {kind: bool}}
"""


def test_a_space_within_the_space_is_built_and_reads_back_equal(tmp_path) -> None:
    run = load_run(write(tmp_path, NEST))
    deep = {"seed": Constant({"a": 1}), "wide": Bool()}
    assert run.space() == {
        "rate": Float(1e-4, 1.0, log=True),
        "inner": {"kind": Categorical(("a", "b")), "deep": deep},
    }
    assert checked_run(yaml.safe_load(dump(run)), "run.yaml") == run


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("inner.deep.wide.kind=flat", "hyperparameters.inner.deep.wide.kind: must be one of float, int"),
        ("inner.deep.wide.low=1", "hyperparameters.inner.deep.wide.low: unknown key; allowed are kind"),
        (
            "inner.deep.size={kind: int, low: 3, high: 1}",
            "inner.deep.size: low < high must hold",
        ),
        ("inner.deep.size=3", "hyperparameters.inner.deep.kind: must be one of"),
        ("inner=3", "hyperparameters.inner: must be a mapping of keys, got 3"),
    ],
)
def test_a_mistake_within_a_space_is_named_by_its_whole_path(tmp_path, change: str, said: str) -> None:
    with pytest.raises(InputError) as raised:
        load_run(write(tmp_path, NEST), [f"hyperparameters.{change}"])
    assert said in str(raised.value)


def test_the_decoder_takes_no_space_within(tmp_path) -> None:
    with pytest.raises(
        InputError, match=r"hyperparameters.dropout: must be a domain; only a class of your own"
    ):
        load_run(write(tmp_path, DEMO), ["hyperparameters.dropout={rate: {kind: bool}}"])


def test_the_rules_get_what_the_file_says(tmp_path) -> None:
    run = load_run(write(tmp_path, DEMO))
    assert run.rules() == Rules(steps=run.training.steps)
    changes = ["population.age_window=40", "population.burn_in=60", "population.least=4"]
    changes.append("population.exploit={kind: tournament, rivals: 3}")
    run = load_run(write(tmp_path, DEMO), changes)
    assert run.rules() == Rules(Tournament(3), age_window=40, burn_in=60, least=4, steps=200)
    run = load_run(write(tmp_path, DEMO), ["population.exploit=none", "population.cull={grace: 40}"])
    assert run.rules() == Rules(NoExploit(), cull=Cull(40, 4.0), steps=200)


def test_nothing_can_be_set_inside_a_value(tmp_path) -> None:
    with pytest.raises(InputError, match="seed holds a value"):
        load_run(write(tmp_path, DEMO + "seed: 0"), ["seed.x=1"])


def test_all_mistakes_are_reported_at_once(tmp_path) -> None:
    with pytest.raises(InputError) as raised:
        load_run(write(tmp_path, DEMO), ["training.batch=0", "nam=x", "model.layers=-2"])
    assert len(str(raised.value).split("\n")) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2", "is not YAML"),
        ("just words", "must be a mapping"),
        ("", "must be a mapping"),
        ("seed: 1", "name: is required"),
    ],
)
def test_a_file_that_is_no_run_is_named(tmp_path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_run(write(tmp_path, text))


def test_a_missing_file_a_folder_and_bytes_are_named(tmp_path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_run(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load_run(str(tmp_path))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        load_run(str(tmp_path / "bytes.yaml"))


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("[{from_step: 20, hyperparameters: {}}]", "schedule: from_step must begin with 0 and rise, got [20]"),
        (
            "[{from_step: 0, hyperparameters: {}}, {from_step: 30, hyperparameters: {}}]",
            "schedule: from_step must be a multiple of population.interval (20), got 30",
        ),
        (
            "[{from_step: 0, hyperparameters: {}}, {from_step: 4000, hyperparameters: {}}]",
            "or the entry would never hold, got 4000",
        ),
        (
            "[{from_step: 0, hyperparameters: {clib: 1.0}}]",
            "schedule.0.clib: decoder has no such hyperparameter; did you mean `clip`?",
        ),
    ],
)
def test_a_schedule_that_cannot_be_kept_is_refused(tmp_path, schedule: str, said: str) -> None:
    changes = ["hyperparameters={}", "population.exploit=none", f"schedule={schedule}"]
    with pytest.raises(InputError) as caught:
        load_run(write(tmp_path, DEMO), changes)
    assert said in str(caught.value)
