"""An exported classifier scores rows of columns; models of tokens score instruction rows by their answers."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from safetensors.numpy import save

from shoal.cluster.rows import by_field
from shoal.cluster.storage import Store
from shoal.search.config.selection import ClassScore, DifferenceScore, EmbeddingScore, GradientScore, LossScore
from shoal.search.corpus.build import load_corpus
from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.members.build import build_members
from shoal.search.records.directory import class_inputs, class_names
from shoal.search.runs.dry import first_files
from shoal.search.runs.population import prepare_run
from shoal.search.selection.corpora import stored_rows
from shoal.search.selection.interface import Scoring
from shoal.search.selection.model_scorers import check_models
from shoal.search.selection.scorers import open_scorer
from shoal.search.selection.select import select_corpus
from shoal.trainables.arrays import to_tensors
from shoal.trainables.handover import handed_out
from shoal.trainables.scoring import row_losses, row_states
from tests.search.checks.test_objective import FILE
from tests.trainables.test_instructions import rows as instruction_rows
from tests.trainables.test_instructions import trained

COLUMNS = "{x: {kind: tensor, shape: [6]}, unlabelled: {kind: number, type: bool}, "
COLUMNS += "label: {kind: class, names: [a, b, c]}}"
GIVEN = [f"data.columns={COLUMNS}", "training={steps: 40, batch: 16, evaluation_rows: 30}"]
OBJECTIVES = ["objective=cross_entropy", "objective=[cross_entropy, shrunk_classes]"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(FILE)
    rng = np.random.default_rng(0)
    centres = 5 + 3 * rng.normal(size=(3, 6))
    for group in ("one", "two"):
        label = rng.choice(3, 300)
        x = (centres[label] + rng.normal(size=(300, 6))).astype(np.float32)
        found = {
            "x": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), 6),
            "unlabelled": rng.random(300) < 0.3,
            "label": np.array(["a", "b", "c"])[label],
        }
        pq.write_table(pa.table(found), f"{group}.parquet")


def exported(objective: str = OBJECTIVES[0]) -> tuple[Any, Any]:
    """Train a classifier, and write it as `shoal export` does; return its run and the member."""
    run = prepare_run(load_run("run.yaml", [*GIVEN, objective]), Console(file=io.StringIO()))
    made = build_members(run, {0: {}}, streams=first_files)[0]
    made.train(20)
    weights = handed_out(made.state)["weights"]
    config = {
        "trainable": "classifier",
        "settings": run.settings,
        "objective": run.model_dump(include={"objective"})["objective"],
        "classes": class_names(run),
    }
    Path("best").mkdir()
    Path("best/model.safetensors").write_bytes(save(dict(weights)))
    Path("best/config.json").write_text(json.dumps(config))
    return run, made


def scored(settings: Any, rows: Any) -> dict[str, np.ndarray]:
    return open_scorer(Scoring(settings, "selection.scores.0", 0))(rows, np.arange(len(rows)))


def some_rows(run: Any) -> Any:
    manifest = load_corpus(run.data)
    file = manifest.groups["one"].splits["train"].files[0]
    return stored_rows(Store(run.data.corpus), file)[1]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_losses_chances_and_states_are_those_of_the_member(objective: str) -> None:
    run, made = exported(objective)
    rows = some_rows(run)
    made.module.eval()
    batch = to_tensors(by_field(rows), torch.device("cpu"))
    with torch.no_grad():
        values = made.values(made.module, batch)
    known = ~rows["unlabelled"]
    losses = scored(LossScore(kind="loss", model="best"), rows)["loss"]
    expected = torch.nn.functional.cross_entropy(
        values, torch.from_numpy(rows["label"].astype(np.int64)), reduction="none"
    )
    assert np.isnan(losses[~known]).all() and (~known).any()
    np.testing.assert_allclose(losses[known], expected.numpy()[known], atol=1e-5)
    for label in ("b", 1):
        found = scored(ClassScore(kind="class", model="best", label=label), rows)["probability"]
        np.testing.assert_allclose(found, values.softmax(dim=1)[:, 1].numpy(), atol=1e-6)
    states = scored(EmbeddingScore(kind="embedding", model="best"), rows)["embedding"]
    np.testing.assert_allclose(
        states @ made.module.head.weight.detach().numpy().T + made.module.head.bias.detach().numpy(),
        values.numpy(),
        atol=1e-4,
    )
    same = scored(DifferenceScore(kind="difference", model="best", base="best"), rows)["score"]
    assert (same[known] == 0).all()


def test_an_export_names_its_inputs_and_other_columns_are_not_looked_at() -> None:
    run, _ = exported()
    rows = some_rows(run)
    asked = LossScore(kind="loss", model="best")
    losses = scored(asked, rows)["loss"]
    config = json.loads(Path("best/config.json").read_text()) | {"inputs": class_inputs(run)}
    assert config["inputs"] == ["x"]
    Path("best/config.json").write_text(json.dumps(config))
    wide = np.zeros(len(rows), [("number", "<f4"), *((name, rows.dtype[name]) for name in rows.dtype.names)])
    for name in rows.dtype.names:
        wide[name] = rows[name]
    assert np.array_equal(scored(asked, wide)["loss"], losses, equal_nan=True)


def test_rows_are_chosen_by_the_loss_of_a_classifier() -> None:
    exported()
    by_loss = "selection={policy: {kind: top, score: loss}, share: 0.2, scores: [{kind: loss, model: best}]}"
    run = load_run("run.yaml", [*GIVEN, "data.bad_share=0.5", by_loss])
    chosen = select_corpus(run, print)
    table = pa.concat_tables(
        Store(chosen.data.corpus).read_table(file)
        for group in load_corpus(chosen.data).groups.values()
        for file in group.splits["train"].files
    )
    assert len(table) == chosen.record["kept"] > 0
    assert np.isfinite(table["score_loss"].to_numpy()).all()


def test_what_a_classifier_cannot_score_is_said() -> None:
    run, _ = exported()
    manifest = load_corpus(run.data)
    with pytest.raises(InputError, match="a classifier gives loss, difference, class and embedding"):
        check_models(GradientScore(kind="gradients", model="best"), "s", manifest)
    with pytest.raises(InputError, match=r"s\.label: must be one of a, b, c, or its number, got d"):
        check_models(ClassScore(kind="class", model="best", label="d"), "s", manifest)
    tokens = load_corpus(run.data).__class__(**{**vars(manifest), "fields": []})
    with pytest.raises(InputError, match="reads columns, but the rows are tokens"):
        check_models(LossScore(kind="loss", model="best"), "s", tokens)


def records(given: dict[str, np.ndarray]) -> np.ndarray:
    count, length = given["tokens"].shape
    found = np.zeros(
        count, [("tokens", "<u2", (length,)), ("mask", "u1", (length,)), ("segment", "<u2", (length,))]
    )
    for name, array in given.items():
        found[name] = array
    return found


def test_instruction_rows_count_their_answers_alone() -> None:
    made, given = trained(), instruction_rows(5)
    with torch.no_grad():
        expected = made.loss(made.module, to_tensors(given, torch.device("cpu")), made.sober)
    np.testing.assert_allclose(row_losses(made.module, records(given)), expected.numpy(), atol=1e-5)
    states = row_states(made.module, records(given))
    filled = records(given)
    filled["tokens"][filled["segment"] == 0] = 3  # what fills a row is not looked at
    np.testing.assert_allclose(row_states(made.module, filled), states, atol=1e-6)


def test_a_model_of_transformers_counts_answers_alone_too() -> None:
    pytest.importorskip("transformers")
    from shoal.trainables.pretrained.folder import judging_model
    from tests.helpers.pretrained import causal, tiny_llama
    from tests.helpers.pretrained import instruction_rows as rows_of

    folder = tiny_llama()
    given = rows_of(6)
    member = causal(path=folder, adapter=None)
    member.module.eval()
    with torch.no_grad():
        expected = member.parts(member.module, to_tensors(given, torch.device("cpu"))).nanmean(dim=1)
    found = row_losses(judging_model(folder, "AutoModelForCausalLM", "cpu"), records(given))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
