"""From texts to chosen rows: what is scored, decided and written, what is found again, and what is refused."""

import json
import shutil
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from shoal.cluster.rows import as_rows
from shoal.cluster.storage import Store
from shoal.search.config.run import Run
from shoal.search.config.selection import NgramScore, OwnScore
from shoal.search.corpus.manifest import find_corpus
from shoal.search.corpus.scores import read_kept_scores
from shoal.search.errors import InputError
from shoal.search.load import checked_run, dump
from shoal.search.records.directory import on_chosen_rows
from shoal.search.report.choosing import selection_section
from shoal.search.runs.select import why, with_chosen_rows
from shoal.search.selection import fitting, scoring, stages
from shoal.search.selection.corpora import Corpus, read_columns, read_ids
from shoal.search.selection.duplicates import shingles
from shoal.search.selection.interface import Scoring
from shoal.search.selection.leaks import stretch_hashes
from shoal.search.selection.page import write_page
from shoal.search.selection.select import select_corpus
from shoal.search.selection.shown import SHOWN_FILE
from shoal.search.selection.writing import DECISIONS, ids_of_copies

WORDS = {
    "sea": ["wave", "salt", "ship", "tide", "sail", "gull", "reef", "deep"],
    "wood": ["leaf", "root", "moss", "bark", "fern", "oak", "pine", "twig"],
}


def write_group(folder: Path, kind: str, documents: int, seed: int, words: int = 120) -> str:
    """Write documents of a kind's words; returns the folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"text": " ".join(rng.choice(WORDS[kind], words).tolist()) + f" {number}"})
        for number in range(documents)
    ]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    return str(folder)


@pytest.fixture
def places(tmp_path) -> dict[str, str]:
    return {
        "sea": write_group(tmp_path / "sea", "sea", 30, 1),
        "wood": write_group(tmp_path / "wood", "wood", 60, 2),
        "like": write_group(tmp_path / "like", "sea", 30, 3),
    }


def run_of(tmp_path: Path, places: dict[str, str], selection: dict[str, Any], **data: Any) -> Run:
    values = {
        "name": "chosen",
        "directory": str(tmp_path / "run"),
        "data": {
            "corpus": str(tmp_path / "corpus"),
            "groups": {name: places[name] for name in ("sea", "wood")},
            "sequence_length": 128,
            "validation": 0.2,
            "test": 0.2,
            **data,
        },
        "hyperparameters": {"learning_rate": {"kind": "float", "low": 0.001, "high": 0.01}},
        "selection": selection,
    }
    return checked_run(values, "run.yaml")


def dsir(places: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"policy": {"kind": "dsir"}, "share": 0.2, "target": {"like": places["like"]}, **more}


def said() -> tuple[list[str], Any]:
    lines: list[str] = []
    return lines, lines.append


def chosen_table(chosen) -> pa.Table:
    manifest = find_corpus(chosen.data)
    files = [file for group in manifest.groups.values() for file in group.splits["train"].files]
    store = Store(chosen.data.corpus)
    return pa.concat_tables([store.read_table(file) for file in files])


class TestSelect:
    def test_rows_like_the_target_are_chosen_and_written_as_a_corpus(self, tmp_path, places) -> None:
        run = run_of(tmp_path, places, dsir(places))
        lines, report = said()
        chosen = select_corpus(run, report)
        record, table = chosen.record, chosen_table(chosen)
        assert record["kept"] == len(table) == round(0.2 * record["rows"])
        assert record["groups"]["sea"]["kept"] > 0.9 * record["kept"]
        assert record["kl"]["like"]["after"] < 0.3 * record["kl"]["like"]["before"]
        # tokens are those of the pool's rows of the same ids, and the scores stand beside them
        pool = Corpus(run.data, find_corpus(run.data))
        ids = read_ids(pool)
        rows = np.concatenate([as_rows(pool.store.read_table(file)) for file in pool.files])
        place = {row: number for number, row in enumerate(ids.tolist())}
        assert np.array_equal(as_rows(table), rows[[place[row] for row in table["row_id"].to_pylist()]])
        assert {"score_log_ratio", "score_length"} <= set(table.column_names)
        assert any("ngrams" in line for line in lines)

    def test_it_is_found_again_and_another_budget_scores_nothing(self, tmp_path, places) -> None:
        first = select_corpus(run_of(tmp_path, places, dsir(places)), print)
        lines, report = said()
        assert select_corpus(run_of(tmp_path, places, dsir(places)), report) == first and not lines
        other = select_corpus(run_of(tmp_path, places, dsir(places, share=0.4)), report)
        assert not [line for line in lines if "scored" in line]
        assert other.record["kept"] > first.record["kept"]
        # both are there
        assert find_corpus(first.data) is not None and find_corpus(other.data) is not None

    def test_a_stage_that_was_killed_goes_on_and_gives_the_same(self, tmp_path, places, monkeypatch) -> None:
        whole = select_corpus(run_of(tmp_path / "one", places, dsir(places)), print)
        scored, wrapped = [], scoring.FileScorer.__call__

        def killed(self, file):
            if len(scored) == 1:
                raise KeyboardInterrupt
            scored.append(file)
            return wrapped(self, file)

        run = run_of(tmp_path / "two", places, dsir(places))
        monkeypatch.setattr(scoring.FileScorer, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            select_corpus(run, print)
        monkeypatch.setattr(scoring.FileScorer, "__call__", wrapped)
        again = select_corpus(run, print)
        assert again.record["content"] == whole.record["content"]
        assert chosen_table(again).equals(chosen_table(whole))

    def test_held_out_rows_of_the_target_calibrate_its_log_ratios(self, tmp_path, places) -> None:
        lines, report = said()
        plain = select_corpus(run_of(tmp_path, places, dsir(places)), report)
        policy = {"kind": "dsir", "calibrated": True}
        run = run_of(tmp_path, places, dsir(places, policy=policy))
        chosen = select_corpus(run, report)
        # the pool's scores are there already, and the target's are added
        assert (
            lines[-1].startswith("selection.scores.0: ngrams, 0 rows scored")
            and len(lines) > len(set(lines)) - 1
        )
        assert (
            chosen.record["scores"] == plain.record["scores"] and chosen.record["kept"] == plain.record["kept"]
        )
        assert chosen.record["kl"]["like"]["after"] < 0.3 * chosen.record["kl"]["like"]["before"]
        several = {"like": places["like"], "other": write_group(tmp_path / "other", "wood", 30, 4)}
        both = select_corpus(run_of(tmp_path, places, dsir(places, policy=policy, target=several)), report)
        assert set(both.record["facts"]) == {"cut_0", "cut_1"}

    def test_too_few_held_out_rows_to_calibrate_by(self, tmp_path, places) -> None:
        few = {"like": write_group(tmp_path / "few", "sea", 6, 5)}
        run = run_of(tmp_path, places, dsir(places, policy={"kind": "dsir", "calibrated": True}, target=few))
        with pytest.raises(InputError, match=r"calibrated: needs at least 20 held-out rows .* but like has"):
            select_corpus(run, said()[1])

    def test_several_targets_and_a_mix_of_scores(self, tmp_path, places) -> None:
        targets = {"sea_like": places["like"], "wood_like": write_group(tmp_path / "w", "wood", 30, 7)}
        chosen = select_corpus(run_of(tmp_path, places, dsir(places, target=targets)), print)
        assert all(group["kept"] > 0.3 * chosen.record["kept"] for group in chosen.record["groups"].values())
        table = Store(chosen.data.corpus).read_table(f"{chosen.folder}/{DECISIONS}")
        assert {"log_ratio_0", "log_ratio_1"} <= set(table.column_names)

    def test_a_table_of_scores_and_a_class_of_ones_own(self, tmp_path, places) -> None:
        run = run_of(tmp_path, places, {"policy": "random", "rows": 5})
        select_corpus(run, print)
        ids = read_ids(Corpus(run.data, find_corpus(run.data)))
        path = tmp_path / "scores.parquet"
        pq.write_table(pa.table({"row_id": ids, "score": np.arange(len(ids), dtype=np.float64)}), path)
        selection = {"policy": {"kind": "top"}, "rows": 7, "scores": [{"kind": "table", "path": str(path)}]}
        chosen = select_corpus(run_of(tmp_path, places, selection), print)
        assert sorted(chosen_table(chosen)["row_id"].to_pylist()) == sorted(ids[-7:].tolist())
        (tmp_path / "own_score_of_test.py").write_text(
            "class Third:\n    def score(self, rows):\n        return {'score': rows[:, 3].astype(float)}\n"
        )
        selection["scores"] = [{"kind": "own", "made": "own_score_of_test:Third"}]
        run = run_of(tmp_path, places, selection).model_copy(update={"code": str(tmp_path)})
        table = chosen_table(select_corpus(run, print))
        assert np.array_equal(as_rows(table)[:, 3], table["score_score"].to_numpy())

    def test_rows_of_columns_are_chosen_by_a_class_of_ones_own(self, tmp_path, places) -> None:
        for number, name in enumerate(("sea", "wood")):
            rng = np.random.default_rng(number)
            rows = [{"x": rng.normal(number, 1, 3).tolist(), "label": int(rng.integers(2))} for _ in range(90)]
            (Path(places[name]) / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (tmp_path / "own_columns_of_test.py").write_text(
            "class First:\n    def score(self, rows):\n        return {'score': rows['x'][:, 0]}\n"
        )
        selection = {
            "policy": "top",
            "rows": 20,
            "scores": [{"kind": "own", "made": "own_columns_of_test:First"}],
        }
        kinds = {"x": {"kind": "tensor", "shape": [3]}, "label": {"kind": "class"}}
        run = run_of(tmp_path, places, selection)
        data = type(run.data).model_validate(run.data.model_dump() | {"rows": "columns", "columns": kinds})
        run = run.model_copy(update={"data": data})
        chosen = select_corpus(run.model_copy(update={"code": str(tmp_path)}), print)
        table = chosen_table(chosen)
        rows = as_rows(table, find_corpus(chosen.data).row_type)
        assert len(rows) == 20 and np.array_equal(rows["x"][:, 0], table["score_score"].to_numpy())
        assert "x: [" in Store(chosen.data.corpus).read(write_page(run, chosen)).decode()

    def test_why_a_row_was_chosen_or_not(self, tmp_path, places) -> None:
        chosen = select_corpus(run_of(tmp_path, places, dsir(places)), print)
        table = Store(chosen.data.corpus).read_table(f"{chosen.folder}/{DECISIONS}").to_pylist()
        kept = next(row for row in table if row["copies"])
        left = next(row for row in table if not row["copies"])
        assert f"row {kept['row_id']} of {kept['group']} was chosen: like the target" in why(
            chosen, kept["row_id"]
        )
        assert "was not chosen: less like the target" in why(chosen, left["row_id"])
        with pytest.raises(InputError, match=r"no row of id 5"):
            why(chosen, 5)

    def test_the_page_has_all_groups_and_rows_to_read(self, tmp_path, places) -> None:
        run = run_of(tmp_path, places, dsir(places))
        chosen = select_corpus(run, print)
        page = Store(chosen.data.corpus).read(write_page(run, chosen)).decode()
        for part in ("sea", "wood", "At the edge", "Dropped", "KL to the target", "<svg"):
            assert part in page
        # ten rows of each kind; those at the edge are the ones whose margins are the smallest
        shown = Store(chosen.data.corpus).read_json(f"{chosen.folder}/{SHOWN_FILE}")
        assert [len(rows) for rows in shown["rows"].values()] == [10, 10, 10]
        table = Store(chosen.data.corpus).read_table(f"{chosen.folder}/{DECISIONS}")
        nearest = np.sort(np.abs(table["margin"].to_numpy()))[:10]
        assert [abs(row["margin"]) for row in shown["rows"]["At the edge"]] == pytest.approx(nearest.tolist())
        counts = shown["histograms"]["counts"]
        assert {name: sum(map(sum, each)) for name, each in counts.items()} == {
            name: group["rows"] for name, group in chosen.record["groups"].items()
        }

    def test_a_runs_report_shows_what_was_chosen(self, tmp_path, places) -> None:
        chosen = select_corpus(run_of(tmp_path, places, dsir(places)), print)
        said = {"chosen": chosen.folder.rpartition("/")[2], "corpus": chosen.data.corpus}
        section = selection_section(SimpleNamespace(settings={"selection": said}))
        for part in ("Chosen rows", "KL to the target", "At the edge", "<svg"):
            assert part in section
        gone = selection_section(SimpleNamespace(settings={"selection": said | {"chosen": "other"}}))
        assert "no longer in" in gone
        assert selection_section(SimpleNamespace(settings={"selection": None})) == ""


@pytest.mark.ray
def test_actors_on_the_cluster_score_the_same(tmp_path, places) -> None:
    from shoal.cluster.session import session

    chosen = select_corpus(run_of(tmp_path, places, dsir(places)), print)
    pool = Corpus(chosen.data, find_corpus(chosen.data))
    settings = NgramScore(kind="ngrams", buckets=500)
    ratios = np.linspace(-1, 1, 500)[None]
    own = OwnScore(kind="own", made="no_such_module_of_ours:Score")
    with session():
        count = partial(fitting.GramCounter, pool.data.corpus, settings, "")
        counted = [count()(file) for file in pool.files]
        assert np.array_equal(stages.on_stage(count, pool.files, 0.0), counted)
        told = Scoring(settings, "selection.scores.0", 128, fitted=ratios)
        make = partial(scoring.FileScorer, pool.data.corpus, "scores/there", told)
        rows = [pool.store.read_table(file).num_rows for file in pool.files]
        assert stages.on_stage(make, pool.files, 0.0) == rows
        # what is whole is not scored again
        assert sum(stages.on_stage(make, pool.files, 0.0)) == 0
        lost = Scoring(own, "selection.scores.0", 128)
        wrong = partial(scoring.FileScorer, pool.data.corpus, "scores/none", lost)
        with pytest.raises(InputError, match=r"scores.0.made: no_such_module_of_ours:Score cannot be made"):
            stages.on_stage(wrong, pool.files, 0.0)
    here = partial(scoring.FileScorer, pool.data.corpus, "scores/here", told)()
    assert sum(map(here, pool.files)) == pool.rows
    there, local = (read_columns(pool, [f"scores/{name}"]) for name in ("there", "here"))
    assert there.keys() == local.keys() and all(np.array_equal(there[name], local[name]) for name in local)


class TestRun:
    def test_a_run_trains_on_its_chosen_rows_and_chooses_once(self, tmp_path, places) -> None:
        run = with_chosen_rows(run_of(tmp_path, places, dsir(places, share=0.05)), print, renew=True)
        manifest = find_corpus(run.data)
        assert run.data.corpus.endswith("-selected") and run.data.content == manifest.content
        assert set(run.data.groups) == set(manifest.groups)
        shares = {name: group.splits["train"].rows for name, group in manifest.groups.items()}
        assert run.data.proportions == shares
        # as a resume reads it from the run's own file
        again = checked_run(yaml.safe_load(dump(run)), "run.yaml")
        assert again.data == run.data and with_chosen_rows(again, print, renew=False) == again
        given = run_of(tmp_path, places, dsir(places, share=0.05))
        assert on_chosen_rows(given, run).data.corpus == run.data.corpus

    def test_kept_scores_are_read_beside_the_rows(self, tmp_path, places) -> None:
        everything = {"kind": "threshold", "score": "log_ratio", "share": 1.0}
        run = run_of(tmp_path, places, dsir(places, policy=everything, share=None, scores=[{"kind": "ngrams"}]))
        run = with_chosen_rows(run, print, renew=True)
        found = read_kept_scores(run.data, "log_ratio")
        for name, group in find_corpus(run.data).groups.items():
            assert len(found[name]) == group.splits["train"].rows and np.isfinite(found[name]).all()
        assert found["sea"].mean() > found["wood"].mean()
        with pytest.raises(InputError, match=r"has no score loss beside its rows, but has length, log_ratio"):
            read_kept_scores(run.data, "loss")

    def test_rows_that_are_gone_are_named(self, tmp_path, places) -> None:
        run = with_chosen_rows(run_of(tmp_path, places, dsir(places)), print, renew=True)
        shutil.rmtree(run.data.corpus)
        with pytest.raises(InputError, match=r"are gone from .*; choose them again with `shoal select FILE`"):
            with_chosen_rows(run, print, renew=False)


class TestBadInput:
    def test_a_target_that_is_in_the_pool_is_named_with_its_rows(self, tmp_path, places) -> None:
        leaked = tmp_path / "leaked"
        write_group(leaked, "sea", 30, 3)
        lines = (leaked / "texts.jsonl").read_text().splitlines()
        with open(Path(places["wood"]) / "texts.jsonl", "a") as file:
            file.write("\n" + "\n".join(lines[:25]))
        with pytest.raises(
            InputError, match=r"selection.target \(like\): \d+ of its \d+ rows stand in the pool too"
        ):
            select_corpus(run_of(tmp_path, places, dsir(places)), print)

    def test_a_few_rows_of_the_target_in_the_pool_are_left_out(self, tmp_path, places) -> None:
        lines = (Path(places["like"]) / "texts.jsonl").read_text().splitlines()
        with open(Path(places["wood"]) / "texts.jsonl", "a") as file:
            file.write("\n" + "\n".join(lines[:2]))
        said_lines, report = said()
        chosen = select_corpus(run_of(tmp_path, places, dsir(places)), report)
        assert any("stand in the pool too" in line for line in said_lines)
        assert chosen.record["reasons"]["in the target too"] > 0

    def test_an_empty_target(self, tmp_path, places) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match=r"selection.target.like .*: no file in this folder"):
            select_corpus(run_of(tmp_path, places, dsir({"like": str(tmp_path / "empty")})), print)

    def test_a_budget_above_the_pool(self, tmp_path, places) -> None:
        run = run_of(tmp_path, places, {"policy": "random", "rows": 10**6})
        with pytest.raises(InputError, match=r"selection: the budget must be at most the .* but is 1000000"):
            select_corpus(run, print)

    def test_scores_that_are_missing_not_finite_or_of_another_pool(self, tmp_path, places) -> None:
        run = run_of(tmp_path, places, {"policy": "random", "rows": 5})
        select_corpus(run, print)
        ids = read_ids(Corpus(run.data, find_corpus(run.data)))
        path = tmp_path / "scores.parquet"

        def select(columns, **selection):
            pq.write_table(pa.table(columns), path)
            given = {"policy": {"kind": "top"}, "rows": 3, "scores": [{"kind": "table", "path": str(path)}]}
            return select_corpus(run_of(tmp_path, places, {**given, **selection}), said_lines.append)

        said_lines: list[str] = []
        some = np.arange(len(ids), dtype=np.float64)
        with pytest.raises(InputError, match=r"selection.policy: needs the column score, but .* made quality"):
            select({"row_id": ids, "quality": some})
        with pytest.raises(InputError, match=r"must have a column row_id of int64"):
            select({"id": ids, "score": some})
        with pytest.raises(InputError, match=r"rows have no finite score .* more than data.bad_share"):
            select({"row_id": ids + 1, "score": some})
        few = some.copy()
        few[:2] = np.nan
        found = select({"row_id": ids, "score": few})
        assert any(f"2 of {len(ids)} rows have no finite score" in line for line in said_lines)
        assert found.record["reasons"]["a score that is not finite"] == 2
        with pytest.raises(InputError, match=r"cannot be read as Parquet"):
            path.write_text("no table")
            given = {"policy": {"kind": "top"}, "rows": 3, "scores": [{"kind": "table", "path": str(path)}]}
            select_corpus(run_of(tmp_path, places, given), print)

    @pytest.mark.parametrize(
        "selection, wanted",
        [
            ({"policy": "dsir", "share": 0.2}, "selection.target: ngrams needs at least one group"),
            ({"policy": "top"}, "selection.rows: top needs a budget"),
            ({"policy": "random", "share": 0.2, "rows": 4}, "selection.share: give rows or share, not both"),
            ({"policy": "small_loss", "rows": 4}, "selection.rows: small_loss decides itself"),
            ({"policy": "top", "rows": 4}, "selection.policy: top goes by the column score"),
            ({"policy": "tops", "rows": 4}, "selection.policy.kind: must be one of random, top"),
            ({"policy": {"kind": "dsir", "temperature": -1}, "rows": 4}, "temperature: must be at least 0"),
            ({"policy": "random", "rows": 4, "target": {"a": "x"}}, "look at a target; leave it out"),
            ({"policy": "random", "rows": 4, "scores": [{"kind": "lost"}]}, "selection.scores"),
            ({"policy": {"kind": "threshold"}}, "share or cut must be given"),
            ({"policy": "random", "rows": 4, "mix": {"loss": 1.0}}, "the mix has the column loss"),
        ],
    )
    def test_what_the_file_alone_shows(self, tmp_path, places, selection, wanted) -> None:
        with pytest.raises(InputError, match=r"run.yaml: ") as caught:
            run_of(tmp_path, places, selection)
        assert wanted in str(caught.value) and "\n" not in str(caught.value)

    def test_a_target_that_is_a_group_of_the_pool(self, tmp_path, places) -> None:
        with pytest.raises(InputError, match=r"selection.target.like: is the same source as data.groups.sea"):
            run_of(tmp_path, places, dsir({"like": places["sea"]}))

    def test_a_missing_library_for_near_duplicates(self, tmp_path, places, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "datasketch", None)
        run = run_of(tmp_path, places, {"policy": "random", "rows": 4, "duplicates": {}})
        with pytest.raises(
            InputError, match=r"selection.duplicates: needs the package datasketch \(pip install"
        ):
            select_corpus(run, print)


def test_stretches_by_hand() -> None:
    rows = np.array([[1, 2, 3, 4], [9, 1, 2, 3]], np.uint16)
    found = stretch_hashes(rows, 3)
    # 123 and 234 of the first row, 912 and 123 of the second: 123 is one hash wherever it stands
    assert found.shape == (2, 2) and found[0, 0] == found[1, 1]
    assert len(set(found.ravel().tolist())) == 3
    assert shingles(rows, 9).shape == (2, 1)


def test_copies_have_ids_of_their_own() -> None:
    found = ids_of_copies(np.array([5, 5, 5, 7]), np.array([0, 1, 2, 0]))
    assert found[0] == 5 and found[3] == 7 and len(set(found.tolist())) == 4 and (found >= 0).all()
