"""Rows are chosen by their likeness to the target, by vectors of a model, of a class, or in the rows."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.datasets import load_digits

from shoal.cluster.storage import Store
from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.selection.select import select_corpus
from shoal.search.selection.writing import DECISIONS
from tests.helpers.runs import shoal
from tests.search.corpus.test_scores import model, module
from tests.search.selection.test_select import places, run_of, said, write_group

__all__ = ["model", "module", "places"]  # fixtures
THREE = 3
SIMILARITY = {"kind": "similarity", "vectors": "x", "nearest": 3}
THRESHOLD = {"kind": "threshold", "score": "similarity", "share": 0.1}


def write_digits(folder: Path, selection: dict, more: dict | None = None) -> str:
    """Write all digits but a third of the threes as a pool, those as a target, and a run's file."""
    found = load_digits()
    threes = np.flatnonzero(found.target == THREE)
    target = np.isin(np.arange(len(found.target)), threes[::3])
    for name, chosen in (("pool", ~target), ("like", target)):
        x = pa.FixedSizeListArray.from_arrays(pa.array(found.data[chosen].astype(np.float32).reshape(-1)), 64)
        pq.write_table(pa.table({"x": x, "label": found.target[chosen]}), folder / f"{name}.parquet")
    columns = {"x": {"kind": "tensor", "shape": [8, 8]}, "label": {"kind": "class"}, **(more or {})}
    values = {
        "name": "threes",
        "trainable": "classifier",
        "data": {
            "groups": {"pool": "pool.parquet"},
            "columns": columns,
            "corpus": "corpus",
            "builder": "local",
        },
        "settings": {"classes": 10},
        "hyperparameters": {"learning_rate": {"kind": "float", "low": 0.001, "high": 0.1}},
        "selection": {"target": {"like": "like.parquet"}, **selection},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    return str(folder / "run.yaml")


def labels(folder: Path) -> list[int]:
    from shoal.cluster.rows import as_rows

    manifest = json.loads(next(Path(folder, "corpus-selected").rglob("manifest*.json")).read_text())
    files = [file for group in manifest["groups"].values() for file in group["splits"]["train"]["files"]]
    store = Store(str(folder / "corpus-selected"))
    return [int(label) for file in files for label in as_rows(store.read_table(file))["label"]]


def test_select_keeps_the_digits_that_are_like_the_target(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_digits(tmp_path, {"policy": THRESHOLD, "scores": [SIMILARITY]})
    told = shoal("select", path, folder=tmp_path)
    assert "selection.scores.0: similarity" in told and "within the cut" in told
    kept = labels(tmp_path)
    assert len(kept) > 100 and np.mean(np.array(kept) == THREE) > 0.6  # of the pool 7 % are threes
    # a row's number is in the decisions, in what is said of it, and on the page
    decisions = next((tmp_path / "corpus-selected/selections").rglob(DECISIONS))
    row = Store(str(decisions)).read_table("000000.parquet").slice(0, 1).to_pylist()[0]
    why = shoal("select", path, "--explain", str(row["row_id"]), folder=tmp_path)
    assert f"similarity {row['similarity']:.4g}" in " ".join(why.split())
    page = next((tmp_path / "corpus-selected/selections").rglob("page.html")).read_text()
    assert f"similarity {max_similarity(decisions):.4g}" in page and "above the cut" in page
    assert page.count('<img alt="x of row') == 30 and "label: 3" in page  # digits are pictures there
    # another cut scores nothing again
    again = shoal("select", path, "selection.policy.share=0.2", folder=tmp_path)
    assert "rows scored" not in again and len(labels(tmp_path)) > 100


def max_similarity(decisions: Path) -> float:
    return float(np.max(Store(str(decisions)).read_table("000000.parquet")["similarity"].to_numpy()))


def test_rows_of_tokens_are_compared_by_a_models_states(tmp_path, places, model) -> None:
    scores = [
        {"kind": "embedding", "model": model},
        {"kind": "similarity", "over": "mean", "column": "likeness"},
    ]
    policy = {"kind": "threshold", "score": "likeness", "share": 0.3}
    selection = {"policy": policy, "scores": scores, "target": {"like": places["like"]}}
    lines, report = said()
    chosen = select_corpus(run_of(tmp_path, places, selection), report)
    groups = chosen.record["groups"]
    assert groups["sea"]["kept"] / groups["sea"]["rows"] > 2 * groups["wood"]["kept"] / groups["wood"]["rows"]
    assert [line.split(", ")[1].split()[2] for line in lines if "rows scored" in line] == ["scored"] * 3
    assert chosen.record["kl"]["like"]["after"] < chosen.record["kl"]["like"]["before"]
    # top goes by it too, and several targets give one number
    selection["target"] = {"like": places["like"], "other": write_group(tmp_path / "other", "sea", 9, 4)}
    top = {**selection, "policy": {"kind": "top", "score": "likeness"}, "rows": 9}
    assert select_corpus(run_of(tmp_path / "two", places, top), print).record["kept"] == 9


class TestBadInput:
    OWN = """
import numpy as np

class Vectors:
    def score(self, rows):
        found = np.asarray(rows["x"], np.float64).reshape(-1, 64)
        {change}
        return {{"vector": found}}
"""

    def chosen(self, tmp_path: Path, change: str, **similarity) -> tuple[list[str], dict]:
        (tmp_path / "own_vectors.py").write_text(self.OWN.format(change=change))
        import sys

        sys.modules.pop("own_vectors", None)
        scores = [
            {"kind": "own", "made": "own_vectors:Vectors"},
            SIMILARITY | {"vectors": "vector"} | similarity,
        ]
        run = load_run(write_digits(tmp_path, {"policy": THRESHOLD, "scores": scores}))
        lines, report = said()
        run = run.model_copy(update={"code": str(tmp_path)})
        return lines, select_corpus(run, report).record

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)

    def test_a_few_rows_without_a_direction_are_left_out(self, tmp_path) -> None:
        # a file of the pool has some 1,500 rows, the target's some 50
        lines, record = self.chosen(tmp_path, "found[:2], found[2] = 0.0, np.nan")
        assert any("3 of" in line and "left out of selection.scores.1" in line for line in lines)
        assert any("rows have no finite similarity" in line for line in lines)
        assert record["reasons"]["a score that is not finite"] == 3

    @pytest.mark.parametrize(
        ("change", "similarity", "wanted"),
        [
            (
                "found[:] = 0.0",
                {},
                "selection.target.like: .* not finite or all zeros, more than data.bad_share",
            ),
            ("found[:20] = np.nan", {}, "selection.target.like: 20 of .* more than data.bad_share"),
            (
                "turn = 2 * np.pi * np.arange(len(found)) / len(found); "
                "found = np.stack([np.cos(turn), np.sin(turn)], axis=1)",
                {"over": "mean"},
                "like: the mean of its vector must have a direction, but is 0; take over: nearest",
            ),
            ("found = found[:, : 5 + (len(found) > 100)]", {}, "must have one width in pool and target"),
            ("found = found[:, 0]", {}, "vectors: vector must hold a vector of numbers for each row"),
            (
                "pass",
                {"vectors": "vectors"},
                "must be a column of a score before it, .* there are label, vector, x",
            ),
        ],
    )
    def test_vectors_that_cannot_be_compared_are_one_clear_line(
        self, tmp_path, change, similarity, wanted
    ) -> None:
        with pytest.raises(InputError, match=wanted) as raised:
            self.chosen(tmp_path, change, **similarity)
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize(
        ("scores", "wanted"),
        [
            ([{"kind": "similarity"}], "must be a column of a score before it, such as `kind: embedding`"),
            ([SIMILARITY, {"kind": "embedding", "model": "m"}], "of data.columns, got y; allowed are label, x"),
            (
                [SIMILARITY | {"vectors": "label"}],
                "must be a column of kind tensor or image, got label of kind class",
            ),
            (
                [SIMILARITY | {"vectors": "said"}],
                "must be a column of kind tensor or image, got said of kind text",
            ),
        ],
    )
    def test_what_the_file_alone_shows(self, tmp_path, scores, wanted) -> None:
        other = {"vectors": "y"}
        scores = [score | (other if score == SIMILARITY or len(score) == 1 else {}) for score in scores]
        more = {"said": {"kind": "text"}} if "text" in wanted else None
        path = write_digits(tmp_path, {"policy": THRESHOLD, "scores": scores}, more)
        with pytest.raises(InputError, match=wanted):
            load_run(path)

    def test_tokens_are_no_vectors(self, tmp_path, places) -> None:
        (tmp_path / "own_length.py").write_text(
            "class Length:\n    def score(self, rows):\n        return {'size': rows['tokens'][:, 0]}\n"
        )
        for name, count in (("pool", 60), ("target", 40)):
            (tmp_path / name).mkdir(exist_ok=True)
            lines = [json.dumps({"q": f"{name} asks {n}", "a": f"{name} says {n}"}) for n in range(count)]
            (tmp_path / name / "rows.jsonl").write_text("\n".join(lines))
        scores = [{"kind": "own", "made": "own_length:Length"}, SIMILARITY | {"vectors": "tokens"}]
        selection = {"policy": THRESHOLD, "scores": scores, "target": {"like": str(tmp_path / "target")}}
        shape = {"kind": "instruction", "prompt": "q", "answer": "a", "packed": False}
        groups = {"pool": str(tmp_path / "pool")}
        run = run_of(tmp_path, places, selection, groups=groups, format=shape)
        run = run.model_copy(update={"code": str(tmp_path)})
        with pytest.raises(InputError, match="got tokens; there are size"):
            select_corpus(run, print)

    def test_a_target_is_needed_and_ngrams_have_none_of_its_rows(self, tmp_path, places) -> None:
        scores = [{"kind": "ngrams"}, {"kind": "similarity", "vectors": "log_ratio"}]
        selection = {"policy": THRESHOLD, "scores": scores, "target": {"like": places["like"]}}
        with pytest.raises(InputError, match="must be of pool and target, but ngrams scores the pool"):
            select_corpus(run_of(tmp_path, places, selection), print)
        alone = {"policy": THRESHOLD, "scores": [SIMILARITY]}
        with pytest.raises(InputError, match=r"selection.target: similarity needs at least one group"):
            run_of(tmp_path, places, alone)
