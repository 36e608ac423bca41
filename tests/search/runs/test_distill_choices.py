"""What a run of kind distill may choose: further losses and teachers, a proxy task, a staged teacher."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="the extra shoal[hf] is not installed")
pytest.importorskip("tokenizers", reason="the extra shoal[hf] is not installed")

from rich.console import Console

from shoal.cluster.row_order import RowOrder
from shoal.cluster.storage import Store
from shoal.search.distill.export import export_student
from shoal.search.distill.proxy import proxy_rows
from shoal.search.distill.stage import picks
from shoal.search.distill.students import (
    STUDENTS,
    search_students,
)
from shoal.search.distill.teacher import open_teacher
from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.runs.distill import nearest_to, students_table, unmet
from shoal.trainables.distill.shared import SharedTeacher
from shoal.trainables.distill.staged import Staged, flatten
from shoal.trainables.distill.teachers import Ensemble, load_teacher
from tests.helpers.distillation import (
    HELD_OUT,
    networks,
    rows,
    save_llama,
    save_teacher,
    without_ray,
    write_run,
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> str:
    return save_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def llamas(tmp_path_factory, teacher) -> list[str]:
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    return [save_llama(folder, teacher, seed) for seed, folder in enumerate(folders)]


@pytest.fixture
def file(tmp_path, teacher) -> str:
    return write_run(tmp_path, teacher)


def tokens(count: int = 3) -> torch.Tensor:
    return torch.from_numpy(rows(0, count).astype(np.int64))


def test_a_teacher_shows_its_stream_and_its_logits(teacher, llamas) -> None:
    for folder in (teacher, llamas[0]):
        given, network = load_teacher(folder)
        with torch.no_grad():
            ours = network(tokens())
        shown = given.show(tokens(), hidden=True, logits=folder != teacher)
        assert torch.allclose(shown.hidden, ours.hidden, atol=1e-5)
        if folder != teacher:
            assert torch.allclose(shown.logits, network.logits(ours.hidden), atol=1e-5)
        assert given.show(tokens()).tensors[3:] == []


def test_an_ensemble_means_probabilities(llamas) -> None:
    teachers = [load_teacher(folder)[0] for folder in llamas]
    shown = Ensemble(teachers).show(tokens(), logits=True)
    each = [one.show(tokens(), logits=True) for one in teachers]
    mean = sum(one.logits.softmax(-1) for one in each) / 2
    assert torch.allclose(shown.logits.softmax(-1), mean, atol=1e-6)
    assert torch.equal(shown.relations[0], each[0].relations[0])


@pytest.mark.parametrize("losses", ["{relation: 0, hidden: 1}", "{hidden: 0.5, logits: 2, temperature: 3}"])
def test_a_student_that_is_its_teacher_has_nothing_to_learn_by_any_loss(file, llamas, losses) -> None:
    space = "{whole: {depths: [3], heads: [4], widths: [48], ratios: [2]}}"
    changes = [f"distill.teacher={llamas[0]}", f"distill.spaces={space}", f"distill.losses={losses}"]
    run = load_run(file, [*changes, "population.members=2"])
    member = networks(run)[0]
    assert member.evaluate()[0] == pytest.approx(0.0, abs=1e-6)


def test_all_losses_together_are_learnt_and_the_student_is_exported(file, llamas, monkeypatch) -> None:
    without_ray(monkeypatch)
    losses = "distill.losses={relation: 1, hidden: 1, logits: 1}"
    changes = [f"distill.teacher={llamas[0]}", f"distill.ensemble=[{llamas[1]}]", losses, "training.steps=20"]
    run = load_run(file, changes)
    found = networks(run, 0.0005)
    before = [member.evaluate()[0] for member in found.values()]
    for member in found.values():
        member.train(20)
    after = [member.evaluate()[0] for member in found.values()]
    assert np.mean(after) > np.mean(before)
    # the projection to the teacher's width is trained too, and the parts of the sum can be told apart
    assert not torch.equal(found[0].module.project.weight, torch.eye(48, 36))
    weights = {name: found[place].state()["weights"] for place, name in enumerate(("low", "high"))}
    row = next(row for row in search_students(run, found[0].origin.shape, weights, HELD_OUT) if "name" in row)
    store = Store(run.directory)
    plain = {**row, "subnet": row["subnet"].plain(), "member": 0}
    store.write_json(STUDENTS, {"teacher": {}, "round": 2, "students": [plain]})
    monkeypatch.setattr("shoal.cluster.checkpoints.load_member", lambda *_: {"weights": weights[row["space"]]})
    folder = export_student(run, store, row["name"])
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert sum(weight.numel() for weight in model.parameters()) == row["parameters"] * 1e6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["distill.ensemble=[FIRST]"], "only the logits of further teachers are used"),
        (["distill.ensemble=[BERT]", "distill.losses.logits=1"], "of kind encoder with 64"),
        (["distill.ensemble=[OTHER]", "distill.losses.logits=1"], "the first teacher's 64 tokens, got one of"),
        (["distill.ensemble=[/none]", "distill.losses.logits=1"], r"distill.ensemble[0]: must be a folder"),
    ],
)
def test_teachers_that_do_not_fit_are_refused(file, teacher, llamas, tmp_path, changes, message) -> None:
    other = tmp_path / "other"
    other.mkdir()
    names = {"FIRST": llamas[0], "BERT": teacher, "OTHER": save_llama(other, teacher, words=80)}
    for name, folder in names.items():
        changes = [change.replace(name, folder) for change in changes]
    with pytest.raises(InputError) as refused:
        load_run(file, [f"distill.teacher={llamas[0]}", *changes])
    assert message in str(refused.value)


def write_task(folder: Path) -> dict[str, str]:
    """Write a task that one word decides: w0 or w1 at the text's beginning."""
    rng, files = np.random.default_rng(0), {}
    for name, count in (("train", 120), ("test", 60)):
        lines = []
        for _ in range(count):
            label = int(rng.integers(2))
            rest = " ".join(f"w{place}" for place in rng.integers(2, 60, 5))
            lines.append(f"w{label} {rest}\t{'good' if label else 'bad'}")
        files[name] = str(folder / f"{name}.tsv")
        Path(files[name]).write_text("\n".join(lines))
    return files


def test_a_proxy_task_ranks_the_networks(file, monkeypatch, tmp_path) -> None:
    without_ray(monkeypatch)
    task = write_task(tmp_path)
    proxy = f"{{train: {task['train']}, test: {task['test']}, steps: 40, learning_rate: 0.003}}"
    run = load_run(file, [f"distill.search={{objective: parameters, budgets: [0.012], proxy: {proxy}}}"])
    found = networks(run)
    weights = {name: found[place].state()["weights"] for place, name in enumerate(("low", "high"))}
    scored = search_students(run, found[0].origin.shape, weights, HELD_OUT)
    accuracies = [row["accuracy"] for row in scored]
    assert max(accuracies) > 0.9  # a word that decides is found
    # the front is that of accuracy: along it both rise with the cost
    named = sorted((row for row in scored if "name" in row), key=lambda row: row["parameters"])
    assert max(named, key=lambda row: row["accuracy"])["accuracy"] == max(accuracies)
    steps = np.diff([row["accuracy"] for row in named])
    assert (steps >= 0).all() and len(named) < len(scored)
    within = [row for row in scored if row["parameters"] <= 0.012]
    picked = next(row for row in scored if row.get("budgets") == [0.012])
    assert picked["accuracy"] == max(row["accuracy"] for row in within)
    said = io.StringIO()
    whole = {"macs": 1.0, "parameters": 1.0}
    Console(file=said, width=160).print(students_table(run, whole, [row | {"test_loss": 1.0} for row in named]))
    assert "accuracy" in said.getvalue() and f"{max(accuracies):.4f}" in said.getvalue()


def test_a_tasks_rows_are_cut_and_padded(file, tmp_path) -> None:
    (tmp_path / "train.tsv").write_text("w0 w1\tb\n" + "w5 " * 20 + "\ta\n")
    (tmp_path / "test.tsv").write_text("w1\ta\n")
    places = f"{{train: {tmp_path}/train.tsv, test: {tmp_path}/test.tsv, batch: 2}}"
    train, test = proxy_rows(load_run(file, [f"distill.search.proxy={places}"]))
    # [CLS] w0 w1 [SEP], then padding; the long one ends with [SEP] at twelve tokens
    assert train.tokens[0].tolist() == [2, 4, 5, 3] + [0] * 8 and train.mask.sum(1).tolist() == [4, 12]
    assert train.tokens[1, -1] == 3 and train.labels.tolist() == [1, 0] and test.labels.tolist() == [0]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("w0\ta\nw1 b\n", "w0\ta\n", "a line must be a text, a tab and a label, but line 2 is not"),
        ("w0\ta\nw1\ta\n", "w0\ta\n", "train must have at least two labels"),
        ("w0\ta\nw1\tb\n", "w0\tc\n", "and test no others, but train has a, b and test c"),
        ("w0\ta\n", "w0\ta\n", r"proxy.batch: must be at most 1, the lines of train"),
    ],
)
def test_a_task_that_cannot_be_used_is_refused(file, tmp_path, train, test, message) -> None:
    (tmp_path / "train.tsv").write_text(train)
    (tmp_path / "test.tsv").write_text(test)
    places = f"{{train: {tmp_path}/train.tsv, test: {tmp_path}/test.tsv, batch: 2}}"
    with pytest.raises(InputError) as refused:
        load_run(file, [f"distill.search.proxy={places}"])
    assert message in str(refused.value)


def test_what_was_shown_beforehand_is_not_asked_for_again(file, llamas) -> None:
    run = load_run(file, [f"distill.teacher={llamas[0]}", "distill.losses.hidden=1"])
    teacher = open_teacher(run, "cpu")[0]
    given = rows(0, 6)
    shown = teacher.look(torch.from_numpy(given.astype(np.int64)), None)
    staged = Staged([part.shape[-1] for part in shown.tensors])
    lines = flatten(shown)
    staged.add(given[:4], lines[:4])
    staged.add(given[4:], lines[4:])
    other = SharedTeacher(teacher.teacher, hidden=True, staged=staged)
    chosen = torch.from_numpy(given[[5, 0, 3]].astype(np.int64))
    again = other.see(chosen)
    assert other.computed == 0 and len(again.tensors) == 4
    for found, before in zip(again.tensors, shown.tensors, strict=True):
        assert torch.allclose(found, before[[5, 0, 3]], atol=2e-3, rtol=2e-3)  # half precision
    other.see(torch.from_numpy(rows(50, 3).astype(np.int64)))
    assert other.computed == 1


def test_the_stage_looks_at_the_rows_that_come_first() -> None:
    order = RowOrder("mine", [4, 3, 5], 7)
    found = picks(["a", "b", "c"], order, 7)
    files = [order.file(turn) for turn in range(3)]
    assert [name for name, _ in found] == ["abc"[place] for place in files[: len(found)]]
    stored = [order.starts["abc".index(name)] + row for name, rows_ in found for row in rows_]
    assert stored == order.places(0, 7).tolist()


def test_a_budget_that_nobody_turned_out_to_meet_is_told(file) -> None:
    run = load_run(file).model_copy()
    search = run.distilling.search.model_copy(update={"objective": "latency", "budgets": [0.5, 2.0]})
    run = run.model_copy(update={"distill": run.distilling.model_copy(update={"search": search})})
    scored = [{"latency": 1.25, "space": "low"}, {"latency": 3.0, "space": "high"}]
    assert unmet(run, scored) == [0.5]
    assert nearest_to(run, scored) == "the nearest has 1.25 ms, of low"
