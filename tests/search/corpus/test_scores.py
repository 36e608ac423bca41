"""Scores of a corpus's rows by an exported model, and training from easy to hard by them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from shoal.cluster.rows import as_rows
from shoal.cluster.storage import Store
from shoal.policies.sampling.hardness import EasyToHard
from shoal.search.config.sections import Data
from shoal.search.corpus import scores
from shoal.search.corpus.build import build_corpus, load_corpus
from shoal.search.corpus.scores import cost, matched, read_scores, score_corpus
from shoal.search.errors import InputError
from shoal.search.members.kept import KeptRows, arranged
from shoal.search.members.views import Pace
from shoal.trainables.decoder import Decoder, initialise, token_losses, trained_decoder
from shoal.trainables.scoring import row_losses
from shoal.trainables.settings import DecoderShape
from tests.helpers.runs import shoal
from tests.search.corpus.test_sources import TEXTS, folder
from tests.search.members.test_sampled import Memory

SHAPE = DecoderShape(vocabulary=257, sequence_length=64, layers=1, heads=2, width=8)


def test_a_score_is_the_mean_loss_of_a_row_by_hand() -> None:
    # no layers and a norm of ones: after token 0, whose embedding is (1, 0), the logits are (sqrt(2), 0)
    weights = {"embedding.weight": np.eye(2, dtype=np.float32), "norm.weight": np.ones(2, np.float32)}
    model = trained_decoder(DecoderShape(2, 3, layers=0, heads=1, width=2), weights, length=3)
    same, other = math.log(1 + math.exp(-math.sqrt(2))), math.log(1 + math.exp(math.sqrt(2)))
    rows = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1]], np.uint16)
    assert row_losses(model, rows).tolist() == pytest.approx([same, other, (same + other) / 2], abs=1e-5)


@pytest.fixture(scope="module")
def module() -> Decoder:
    found = Decoder(SHAPE)
    initialise(found, torch.Generator().manual_seed(0))
    with torch.no_grad():
        found.embedding.weight.mul_(20)
    return found.eval()


@pytest.fixture
def model(tmp_path, module) -> str:
    store = Store(str(tmp_path / "model"))
    weights = {name: value.numpy() for name, value in module.state_dict().items()}
    store.write("model.safetensors", save(weights))
    config = {"trainable": "decoder", "tokenizer": "bytes", "shape": vars(SHAPE)}
    store.write("config.json", json.dumps(config))
    return store.uri


@pytest.fixture
def data(tmp_path) -> Data:
    folder(tmp_path / "in", TEXTS[:60])
    folder(tmp_path / "lake", TEXTS[60:])
    settings = Data(
        corpus=str(tmp_path / "corpus"),
        groups={"sea": str(tmp_path / "in"), "lake": str(tmp_path / "lake")},
        sequence_length=16,
        validation=0.2,
        test=0.2,
    )
    build_corpus(settings, lambda line: None)
    return settings


@pytest.fixture
def here(monkeypatch) -> None:
    """The stage in this process."""

    def on_actors(files, arguments, gpus):
        scorer = scores.Scorer(*arguments)
        found = [scorer({"file": np.array([file])}) for file in files]
        return [{name: values[0].item() for name, values in each.items()} for each in found]

    monkeypatch.setattr(scores, "on_actors", on_actors)


def first_part(data: Data, group: str) -> str:
    return load_corpus(data).groups[group].splits["train"].files[0]


def expected(data: Data, module: Decoder, group: str) -> np.ndarray:
    tokens = torch.from_numpy(as_rows(Store(data.corpus).read_table(first_part(data, group))).astype(np.int64))
    with torch.no_grad():
        return token_losses(module(tokens), tokens).numpy()


def test_rows_have_the_models_loss_and_it_is_known_what_that_cost(data, model, module, here) -> None:
    record = score_corpus(data, model)
    found = read_scores(data, model)
    for group in ("sea", "lake"):
        assert found[group] == pytest.approx(expected(data, module, group), abs=1e-5)
        assert found[group].std() > 0.05
    assert record["rows"] == sum(map(len, found.values())) and record["passes"] == 1
    assert record["seconds"] > 0 and record["actor_seconds"] > 0 and cost(data, model) == record


def test_scores_belong_to_row_ids_wherever_they_stand_in_the_file(data, model, here) -> None:
    score_corpus(data, model)
    before, store = read_scores(data, model), Store(data.corpus)
    name = f"{scores.folder_of(model, load_corpus(data))}/{first_part(data, 'sea')}"
    table = store.read_table(name)
    store.write_table(name, table.take(np.random.default_rng(0).permutation(len(table))).slice(1))
    after = read_scores(data, model)
    assert np.isnan(after["sea"]).sum() == 1
    known = ~np.isnan(after["sea"])
    assert np.array_equal(after["sea"][known], before["sea"][known])
    found = matched(np.array([5, 7, 6]), np.array([7, 5]), np.array([0.7, 0.5], np.float32))
    assert found[:2].tolist() == pytest.approx([0.5, 0.7]) and math.isnan(found[2])


def test_a_corpus_is_scored_once_and_not_by_what_does_not_fit(data, model, here, monkeypatch) -> None:
    first = score_corpus(data, model)
    monkeypatch.setattr(scores, "on_actors", lambda *arguments: pytest.fail("scored again"))
    assert score_corpus(data, model) == first
    weights = Path(model) / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + b"\0\0\0\0")
    with pytest.raises(InputError, match="this corpus by other weights"):
        score_corpus(data, model)
    weights.unlink()  # its scores are all that is needed
    assert score_corpus(data, model) == first
    with pytest.raises(InputError, match=r"sampling.scorer: must be the folder of an exported model"):
        score_corpus(data, "nowhere/best")
    config = Path(model) / "config.json"
    weights.write_bytes(content)
    Path(data.corpus, scores.folder_of(model, load_corpus(data)), scores.RECORD).unlink()
    config.write_text(config.read_text().replace("bytes", "words"))
    with pytest.raises(InputError, match="must be a decoder for tokenizer bytes of 257 tokens"):
        score_corpus(data, model)


@pytest.mark.ray
def test_a_pool_of_actors_scores_a_corpus_as_a_stage_of_ray_data(data, model, module) -> None:
    from shoal.cluster.session import session

    with session():
        record = score_corpus(data, model)
    found = read_scores(data, model)
    assert record["rows"] == sum(map(len, found.values()))
    for group in ("sea", "lake"):
        assert found[group] == pytest.approx(expected(data, module, group), abs=1e-5)


def test_rows_come_in_ascending_rank_and_those_without_stay_where_they_are_by_hand() -> None:
    places, rank = np.array([3, 0, 4, 1, 2]), np.array([0.5, np.nan, 0.1, 0.5, 0.9])
    # 1 is fourth and stays; the others by rank: 2, then 3 before 0, which comes later in the stream, then 4
    assert arranged(places, rank).tolist() == [2, 3, 0, 1, 4]


def test_every_epoch_goes_from_easy_to_hard_and_a_clone_goes_on_within_it() -> None:
    score = np.random.default_rng(1).permutation(40).astype(np.float32)

    def pool() -> KeptRows:
        return KeptRows(Memory("code", 40), EasyToHard(), 0, Pace(30), epochs=9.0, score=score)

    one, clone = pool(), pool()
    for epoch in range(3):
        ids = np.concatenate([one.take(0, count) is None or one.drawn[-1][1] for count in (7, 6, 20, 7)])
        assert one.epoch == epoch and score[ids].tolist() == list(range(40))
    one.take(0, 11)
    clone.load(one.state())
    assert np.array_equal(one.take(0, 40), clone.take(0, 40)) and clone.epoch == 4


def test_by_its_own_losses_the_first_epoch_is_the_streams_and_the_next_one_theirs() -> None:
    pool, stream = KeptRows(Memory("code", 40), EasyToHard("loss"), 0, Pace(30), epochs=9.0), Memory("code", 40)
    assert np.array_equal(pool.take(0, 40), stream.take(0, 40))
    ids = pool.drawn[-1][1]
    pool.observe(ids, (ids * 7 % 40).astype(np.float32), np.zeros_like(ids))
    pool.take(0, 40)
    assert (pool.drawn[-1][1] * 7 % 40).tolist() == list(range(40))


RUN = """
name: {name}
data: {{corpus: {path}/corpus, groups: {{text: {path}/texts}}, sequence_length: 32, validation: 0.2, test: 0.2}}
model: {{layers: 1, heads: 2, width: 16}}
training: {{steps: 40, batch: 8, warmup: 5, evaluation_rows: 8}}
hyperparameters: {{learning_rate: {{kind: float, low: 0.001, high: 0.03, log: true}}}}
population: {{members: 2, interval: 10, exploit: none}}
cluster: {{broods: 1}}
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_trains_from_easy_to_hard_by_another_runs_best_member(tmp_path) -> None:
    folder(tmp_path / "texts", TEXTS)
    for name, more in (
        ("first", ""),
        ("second", f"sampling: {{rule: easy_to_hard, scorer: {tmp_path}/first/best}}\n"),
    ):
        (tmp_path / f"{name}.yaml").write_text(RUN.format(name=name, path=tmp_path) + more)
        said = shoal("run", str(tmp_path / f"{name}.yaml"), f"directory={tmp_path / name}")
    assert f"rows by {tmp_path}/first/best, 1 pass" in said
    found = json.loads((tmp_path / "second" / "summary.json").read_text())
    assert found["status"] == "done" and found["scoring"]["passes"] == 1 and found["scoring"]["seconds"] > 0
    rows = Store(str(tmp_path / "second")).read_table("metrics.parquet").to_pylist()
    assert {row["kept"] for row in rows} == {1.0}
