"""Embedders out of a file, without Ray."""

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
from tests.search.checks.test_objective import FILE

QUIET = Console(file=io.StringIO())
VECTORS = ("query", "positive")
COLUMNS = "{query: {kind: tensor, shape: [6]}, positive: {kind: tensor, shape: [6]}}"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(FILE.replace("trainable: classifier", "trainable: embedder"))
    rng = np.random.default_rng(0)
    for group in ("one", "two"):
        vectors = rng.normal(size=(2, 200, 6)).astype(np.float32)
        arrays = [pa.FixedSizeListArray.from_arrays(pa.array(each.reshape(-1)), 6) for each in vectors]
        pq.write_table(pa.table(dict(zip(VECTORS, arrays, strict=True))), f"{group}.parquet")


def load(*changes: str):
    return load_run("run.yaml", [f"data.columns={COLUMNS}", "training.evaluation_rows=8", *changes])


def test_an_embedder_is_tried_from_a_file() -> None:
    said = io.StringIO()
    try_out(load("objective=star", "settings={width: 4, slices: [2]}"), Console(file=said, width=300))
    assert "it trains on as its donor does" in said.getvalue() and "ndcg_one" in said.getvalue()


def test_queries_learn_to_search_among_frozen_documents() -> None:
    documents = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
    np.save("documents.npy", documents)
    rng = np.random.default_rng(2)
    for group in ("one", "two"):
        right = rng.integers(30, size=200)
        query = np.hstack([documents[right], rng.normal(size=(200, 2))]).astype(np.float32)
        column = pa.FixedSizeListArray.from_arrays(pa.array(query.reshape(-1)), 6)
        pq.write_table(pa.table({"query": column, "document": right}), f"{group}.parquet")
    run = load(
        "data.columns={query: {kind: tensor, shape: [6]}, document: {kind: number, type: int64}}",
        "settings={width: 4, index: documents.npy, score: mrr}",
        "objective={kind: adore, depth: 10}",
        "training.learning_rate=0.05",
        "training.batch=16",
    )
    member = build_members(prepare_run(run, QUIET), {0: {}}, streams=first_files)[0]
    first = member.evaluate()[0]
    member.train(40)
    assert first < 0.5 and member.evaluate()[0] > 0.8
    np.save("documents.npy", documents[:20])
    with pytest.raises(InputError, match=r"settings\.document: .* a whole number from 0 and below 20, got 2"):
        class_of(run)
    with pytest.raises(InputError, match=r"settings.index: must hold at least 2 vectors of 5 numbers"):
        class_of(run.model_copy(update={"settings": {**run.settings, "width": 5}}))


def test_hard_negatives_may_be_vectors() -> None:
    rng = np.random.default_rng(3)
    for group in ("one", "two"):
        table = pq.read_table(f"{group}.parquet")
        several = pa.array(rng.normal(size=(200, 3, 6)).tolist())
        table = table.append_column("negatives", several)
        pq.write_table(table.append_column("there", pa.array([[1, 1, 0]] * 200)), f"{group}.parquet")
    columns = COLUMNS[:-1] + ", negatives: {kind: tensor, shape: [3, 6]}, there: {kind: tensor, shape: [%d]}}"
    run = prepare_run(load(f"data.columns={columns % 3}", "objective=hard_negatives"), QUIET)
    member = build_members(run, {0: {}}, streams=first_files)[0]
    assert np.isfinite(member.train(2))
    run = load(
        f"data.columns={columns.replace(', there: {kind: tensor, shape: [%d]}', '')}",
        "objective=hard_negatives",
    )
    assert np.isfinite(build_members(prepare_run(run, QUIET), {0: {}}, streams=first_files)[0].train(1))


@pytest.mark.parametrize(
    ("query", "kind", "said"),
    [
        (
            np.full((200, 6), np.nan),
            "{kind: tensor, shape: [6]}",
            r"data\.columns\.query: must hold finite numbers",
        ),
        (
            np.arange(200.0),
            "number",
            r"data\.columns\.query: must hold a vector, `{kind: tensor, shape: \[numbers\]}`",
        ),
    ],
)
def test_queries_that_no_embedder_can_read_are_one_line(query: np.ndarray, kind: str, said: str) -> None:
    for place, group in enumerate(("one", "two")):
        table = pq.read_table(f"{group}.parquet")
        pq.write_table(table.set_column(0, "query", pa.array((query + place).tolist())), f"{group}.parquet")
    columns = f"{{query: {kind}, positive: {{kind: tensor, shape: [6]}}}}"
    with pytest.raises(InputError, match=said):
        class_of(prepare_run(load(f"data.columns={columns}"), QUIET))


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (
            "objective=guided",
            "settings.guide_positive: names a column, but there is no guide_positive",
        ),
        ("objective=dice", "objective.dice: needs logits, which the embedder does not give"),
        ("settings={query: question}", "settings.query: names a column, but there is no question"),
        ("settings={widht: 4}", "settings.widht: no constant of the embedder; did you mean `width`?"),
        ("training.accumulate=2", "training.accumulate: must be 1 with objective contrastive"),
        (
            "objective=hard_negatives",
            "settings.negatives: names a column, but there is no negatives, and rows have query, positive",
        ),
        ("objective=adore", "settings.document: names a column, but there is no document"),
        (
            "objective={kind: individual_temperatures, nats: 6}",
            "settings.row: names a column, but there is no row, and rows have query, positive",
        ),
        ("training.batch=1", "objective: contrastive: needs batches of at least 2 rows"),
    ],
)
def test_what_cannot_be_is_one_line(change: str, wanted: str) -> None:
    with pytest.raises(InputError) as raised:
        load(change)
    assert wanted in str(raised.value)


def test_an_embedder_may_span_workers_unless_a_tower_would_never_train() -> None:
    assert load("cluster.workers_per_member=2").cluster.workers_per_member == 2
    with pytest.raises(InputError, match=r"settings\.towers: must be one with settings\.index"):
        load(
            "cluster.workers_per_member=2",
            "data.columns={query: {kind: tensor, shape: [6]}, document: {kind: number, type: int64}}",
            "settings={width: 4, towers: two, index: documents.npy}",
            "objective=adore",
        )
