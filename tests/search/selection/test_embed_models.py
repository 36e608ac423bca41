"""An exported embedder gives rows of columns its embeddings, by which policies choose."""

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
from shoal.search.config.selection import EmbeddingScore, LossScore
from shoal.search.corpus.build import load_corpus
from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.members.build import build_members
from shoal.search.runs.dry import first_files
from shoal.search.runs.population import prepare_run
from shoal.search.selection.corpora import stored_rows
from shoal.search.selection.interface import Scoring
from shoal.search.selection.model_scorers import check_models
from shoal.search.selection.scorers import open_scorer
from shoal.trainables.arrays import to_tensors
from shoal.trainables.decoder import Decoder, initialise
from shoal.trainables.handover import handed_out
from shoal.trainables.settings import DecoderShape
from tests.search.checks.test_objective import FILE

VECTORS = "data.columns={query: {kind: tensor, shape: [6]}, positive: {kind: tensor, shape: [6]}}"
TEXTS = "data.columns={query: {kind: text, length: 16}, positive: {kind: text, length: 16}}"
SETTINGS = {VECTORS: "settings={width: 4, towers: two}", TEXTS: "settings={width: 4, layers: 1, hidden: 8}"}
FROM_DECODER = "settings={width: 4, encoder: base}"
SCORE = EmbeddingScore(kind="embedding", model="best")


def write_decoder(folder: str) -> None:
    shape = DecoderShape(257, 16, layers=1, heads=2, width=8)
    decoder = Decoder(shape)
    initialise(decoder, torch.Generator().manual_seed(0))
    Path(folder).mkdir()
    weights = {name: value.numpy() for name, value in decoder.state_dict().items()}
    Path(folder, "model.safetensors").write_bytes(save(weights))
    told = {"trainable": "decoder", "tokenizer": "bytes", "shape": vars(shape)}
    Path(folder, "config.json").write_text(json.dumps(told))


def exported(tmp_path: Path, monkeypatch: Any, columns: str, settings: str = "") -> tuple[Any, Any, Any]:
    """Train an embedder and write it as `shoal export` does; return its run, the member, and some rows."""
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(FILE.replace("trainable: classifier", "trainable: embedder"))
    rng = np.random.default_rng(0)
    for group in ("one", "two"):
        found: dict[str, Any] = {}
        for name in ("query", "positive"):
            numbers = rng.normal(size=(200, 6)).astype(np.float32)
            words = [f"{name} {group} {number}" for number in range(200)]
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), 6)
            found[name] = vectors if columns == VECTORS else words
        pq.write_table(pa.table(found), f"{group}.parquet")
    write_decoder("base")
    run = load_run("run.yaml", [columns, settings or SETTINGS[columns], "training.evaluation_rows=8"])
    run = prepare_run(run, Console(file=io.StringIO()))
    made = build_members(run, {0: {}}, streams=first_files)[0]
    made.train(3)
    Path("best").mkdir()
    Path("best/model.safetensors").write_bytes(save(dict(handed_out(made.state)["weights"])))
    Path("best/config.json").write_text(json.dumps({"trainable": "embedder", "settings": run.settings}))
    manifest = load_corpus(run.data)
    file = manifest.groups["one"].splits["train"].files[0]
    return run, made, stored_rows(Store(run.data.corpus), file)[1]


def scored(settings: Any, rows: Any) -> dict[str, np.ndarray]:
    return open_scorer(Scoring(settings, "selection.scores.0", 0))(rows, np.arange(len(rows)))


@pytest.mark.parametrize(("columns", "settings"), [(VECTORS, ""), (TEXTS, ""), (TEXTS, FROM_DECODER)])
def test_embeddings_are_those_of_the_member(tmp_path, monkeypatch, columns, settings) -> None:
    run, made, rows = exported(tmp_path, monkeypatch, columns, settings)
    check_models(SCORE, "selection.scores.0", load_corpus(run.data))
    found = scored(SCORE, rows)["embedding"]
    made.module.eval()
    with torch.no_grad():
        batch = to_tensors(by_field(rows), torch.device("cpu"))
        theirs = made.embedded(made.module, batch, made.sober)["embedding"]
    expected = torch.nn.functional.normalize(theirs, dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.shape == (len(rows), 4)


def test_rows_and_scores_that_an_embedder_does_not_fit_are_named(tmp_path, monkeypatch) -> None:
    run, _, _ = exported(tmp_path, monkeypatch, VECTORS)
    manifest = load_corpus(run.data)
    with pytest.raises(InputError, match=r"best is an embedder, which gives embedding, but no loss"):
        check_models(LossScore(kind="loss", model="best"), "selection.scores.0", manifest)
    other = np.zeros(3, [("query", np.float32, (5,))])
    with pytest.raises(InputError, match=r"the column query does not fit best"):
        scored(SCORE, other)
    config = {"trainable": "embedder", "settings": {"query": "question"}}
    Path("best/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"looks at the column question, but rows have query, positive"):
        check_models(SCORE, "selection.scores.0", manifest)
