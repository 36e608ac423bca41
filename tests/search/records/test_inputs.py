"""A run goes on with what it began with, wherever that lies now, and with nothing else."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save

from shoal.cluster.storage import Store
from shoal.search.corpus.build import load_corpus
from shoal.search.corpus.manifest import MANIFEST
from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.records import directory, inputs
from shoal.search.runs.population import prepare_run

FILE = """
name: small
data: {corpus: runs/corpus, groups: {docs: texts}, sequence_length: 16, validation: 0.2, test: 0.2}
model: {layers: 1, heads: 1, width: 8}
training: {steps: 8, batch: 2, warmup: 0, evaluation_rows: 2}
population: {members: 2, interval: 4, exploit: {kind: truncation, fraction: 0.5}}
directory: runs/small
hyperparameters: {learning_rate: {kind: float, low: 0.001, high: 0.01}}
"""
QUIET = Console(quiet=True)
GO_ON = {
    "resume": lambda: directory.going_on("runs/small")[0],
    "auto": lambda: directory.same_run(load_run("file.yaml")),
}


def texts(place: Path, seed: int = 0) -> None:
    place.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(40):
        (place / f"{number}.txt").write_text("".join(rng.choice(list("abcdef "), 200)))


def exported(place: Path, value: float) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    shape = {"vocabulary": 257, "sequence_length": 16, "layers": 1, "heads": 1, "width": 8, "expansion": 4.0}
    config = {"trainable": "decoder", "tokenizer": "bytes", "shape": shape, "step": 3}
    (place / "config.json").write_text(json.dumps(config))
    (place / "model.safetensors").write_bytes(save({"w": np.full(3, value)}))
    return place


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project with a run of text that has begun; in it is also a model, which the run names."""
    place = tmp_path / "old"
    texts(place / "texts")
    exported(place / "runs/first/best", 1.0)
    mixing = f"mixing: {{policy: {{kind: doremi}}, reference: {place}/runs/first/best}}\n"
    (place / "file.yaml").write_text(FILE.replace("groups: {docs: texts}", "groups: {docs: texts, more: more}"))
    texts(place / "more", 1)
    (place / "file.yaml").write_text((place / "file.yaml").read_text() + mixing)
    monkeypatch.chdir(place)
    begin()
    return place


def begin(*changes: str):
    run = prepare_run(load_run("file.yaml", changes), QUIET, new=True)
    directory.create(run)
    return run


def move(project: Path, monkeypatch, to: str = "new") -> Path:
    place = project.parent / to
    project.rename(place)
    monkeypatch.chdir(place)
    return place


def test_a_run_keeps_what_it_began_with_and_goes_on(project) -> None:
    run, store = directory.going_on("runs/small")
    assert run.data.content == load_corpus(run.data).content
    assert set(store.read_json(inputs.INPUTS)) == {"mixing.reference"}
    assert prepare_run(run, QUIET) == run
    assert directory.same_run(load_run("file.yaml")) == run


@pytest.mark.parametrize("way", GO_ON)
def test_other_rows_are_refused_in_one_line(project, way: str) -> None:
    shutil.rmtree("runs/corpus")
    texts(project / "texts", seed=5)
    for _ in range(2):
        with pytest.raises(
            InputError, match=r"data.corpus: .*/runs/corpus has other rows than the run began"
        ) as said:
            run = (
                directory.going_on("runs/small")[0]
                if way == "resume"
                else directory.same_run(load_run("file.yaml"))
            )
            prepare_run(run, QUIET)
        assert "\n" not in str(said.value)


def test_a_corpus_that_is_built_anew_beside_it_changes_no_run_that_has_begun(project) -> None:
    before = directory.going_on("runs/small")[0]
    texts(project / "texts", seed=5)
    other = begin("directory=runs/other")
    assert other.data.content != before.data.content
    run = prepare_run(directory.going_on("runs/small")[0], QUIET)
    assert load_corpus(run.data).content == before.data.content == run.data.content
    assert load_corpus(load_run("file.yaml").data).content == other.data.content  # of a new run


def test_a_corpus_that_is_gone_is_built_again_from_the_same_sources(project) -> None:
    before = directory.going_on("runs/small")[0]
    shutil.rmtree("runs/corpus")
    assert prepare_run(directory.going_on("runs/small")[0], QUIET) == before


def test_a_moved_run_goes_on_from_its_new_place(project, monkeypatch) -> None:
    before = directory.going_on("runs/small")[0]
    place = move(project, monkeypatch)
    for way in ("resume", "auto"):
        if way == "resume":
            run = directory.going_on(str(place / "runs/small"))[0]
        else:
            changes = [f"mixing.reference={place}/runs/first/best"]
            run = directory.same_run(load_run("file.yaml", changes))
        assert run.data.corpus == f"{place}/runs/corpus" and run.directory == f"{place}/runs/small"
        assert run.mixing.reference == f"{place}/runs/first/best"
        assert prepare_run(run, QUIET).data.content == before.data.content
        assert not project.exists()
    # its own file now says where it lies
    assert directory.recorded("runs/small")[0].data.corpus == f"{place}/runs/corpus"


def test_a_run_directory_that_moved_alone_finds_all_where_it_was(project, tmp_path) -> None:
    shutil.move(project / "runs/small", tmp_path / "elsewhere")
    run = directory.going_on(str(tmp_path / "elsewhere"))[0]
    assert (
        run.data.corpus == f"{project}/runs/corpus"
        and prepare_run(run, QUIET).directory == f"{tmp_path}/elsewhere"
    )


def test_a_copied_project_goes_on_with_its_own_rows_where_the_original_has_others(
    project, tmp_path, monkeypatch
) -> None:
    before = directory.going_on("runs/small")[0]
    shutil.copytree(project, tmp_path / "copy")
    shutil.rmtree("runs/corpus")
    texts(project / "texts", seed=9)
    begin("directory=runs/other")
    run = directory.going_on(str(tmp_path / "copy/runs/small"))[0]
    assert run.data.corpus == f"{tmp_path}/copy/runs/corpus" and run.data.content == before.data.content


def test_a_moved_run_whose_corpus_is_gone_builds_nothing(project, tmp_path, monkeypatch) -> None:
    place = move(project, monkeypatch)
    shutil.rmtree("runs/corpus")
    with pytest.raises(
        InputError, match=r"data.corpus: the run has moved, and neither .*/old/runs/corpus nor "
    ):
        directory.going_on("runs/small")
    assert not project.exists() and not (place / "runs/corpus").exists()
    # its file builds it where it now is, and the same sources give the same rows
    run = directory.same_run(load_run("file.yaml", [f"mixing.reference={place}/runs/first/best"]))
    assert prepare_run(run, QUIET).data.corpus == f"{place}/runs/corpus"
    assert not project.exists()


def test_a_model_that_was_changed_under_the_run_is_refused(project, monkeypatch) -> None:
    exported(project / "runs/first/best", 2.0)
    for go_on in (lambda: directory.going_on("runs/small"), lambda: directory.same_run(load_run("file.yaml"))):
        with pytest.raises(
            InputError, match=r"mixing.reference: .*/runs/first/best is not what the run began with"
        ):
            go_on()
    exported(project / "runs/first/best", 1.0)
    directory.going_on("runs/small")


def test_other_settings_are_refused_as_before(project) -> None:
    for change, said in (
        ("training.steps=16", "training.steps is 8 there, 16 here"),
        (
            "data.groups={docs: texts, other: more}",
            "data.groups.more is .* there, None here|data.groups.other is None",
        ),
    ):
        with pytest.raises(InputError, match=said):
            directory.same_run(load_run("file.yaml", [change]))


@pytest.mark.parametrize(
    ("place", "before", "now", "found"),
    [
        ("/old/runs/corpus", "/old/runs/small", "/new/runs/small", "/new/runs/corpus"),
        ("/old/runs/corpus", "/old/runs/small", "/new/runs/renamed", "/new/runs/corpus"),
        ("/old/x y/$c", "/old/r", "/n/deep/r", "/n/deep/x y/$c"),
        ("s3://b/old/corpus", "s3://b/old/run", "s3://c/new/run", "s3://c/new/corpus"),
        ("/old/corpus", "/old/run", "s3://c/new/run", "s3://c/new/corpus"),
        ("s3://b/corpus", "/old/run", "/new/run", "s3://b/corpus"),
    ],
)
def test_what_lay_beside_a_run_lies_beside_it(place: str, before: str, now: str, found: str) -> None:
    assert inputs.beside(place, before, now) == found


@pytest.mark.parametrize("key", ["data.tokenizer", "distill.teacher", "distill.search.proxy.train"])
def test_files_and_folders_are_known_by_what_they_consist_of(tmp_path, key: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    names = ("tokenizer.json", "config.json", "model-00001.safetensors", "readme.md")
    for name in names:
        (folder / name).write_text("a")
    place = folder / "readme.md" if "proxy" in key else folder
    first = inputs.digest_of(key, str(place))
    matters = {"data.tokenizer": names[:1], "distill.teacher": names[:3]}.get(key, names[3:])
    for name in names:
        (folder / name).write_text("b")
        assert (inputs.digest_of(key, str(place)) != first) == (name in matters), name
        (folder / name).write_text("a")
    assert inputs.digest_of(key, str(tmp_path / "nothing")) is None


def test_a_corpus_of_a_run_begun_before_this_was_noted_is_used_by_its_place(project) -> None:
    file = Path("runs/small/run.yaml")
    lines = [line for line in file.read_text().splitlines() if "content:" not in line]
    file.write_text("\n".join(lines))
    Path("runs/small/inputs.json").unlink()
    run = directory.going_on("runs/small")[0]
    assert run.data.content is None and prepare_run(run, QUIET).data.content
    assert Store("runs/corpus").exists(MANIFEST)
