"""Folders of transformers as scorers: they read rows as they are, or their texts as tokens of their own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from shoal.search.config.selection import (
    ClassScore,
    DifferenceScore,
    EmbeddingScore,
    GradientScore,
    LossScore,
)
from shoal.search.errors import InputError
from shoal.search.selection.interface import Scoring
from shoal.search.selection.language import digest_of_weights, open_reader
from shoal.search.selection.probes import lookup_probe
from shoal.search.selection.scorers import open_scorer
from shoal.search.selection.select import select_corpus
from shoal.trainables.scoring import by_length, padded, row_losses, row_states
from shoal.trainables.tokenizer import Bytes
from tests.helpers.pretrained import causal, letters, tiny_model, token_rows
from tests.search.selection.test_select import places, run_of, write_group

__all__ = ["places"]  # a fixture
pytest.importorskip("transformers")
TEXTS = ["A short text.", "A text that is very much longer than the other one is.", "x"]


def rows_of(texts: list[str], length: int = 64) -> np.ndarray:
    """Return texts as rows of bytes, filled with the id that ends them."""
    found = np.full((len(texts), length), Bytes.end, np.uint16)
    for row, text in zip(found, texts, strict=True):
        row[: len(text)] = Bytes().encode(text)
    return found


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> str:
    from transformers import BertConfig, BertForSequenceClassification

    folder = str(tmp_path_factory.mktemp("classifier"))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=260,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=3,
        id2label={0: "bad", 1: "fair", 2: "good"},
        label2id={"bad": 0, "fair": 1, "good": 2},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    letters(folder)
    return folder


def test_sequences_of_like_length_come_together_and_all_of_them_once(monkeypatch) -> None:
    monkeypatch.setattr("shoal.trainables.scoring.TOKENS_PER_PASS", 8)
    sequences = [np.arange(length) for length in (5, 1, 3, 2, 4)]
    parts = list(by_length(sequences))
    # 1 and 2 and then 3 fit into 8 tokens as rows of 2, but not as rows of 3; 4 and 5 are alone
    assert [places.tolist() for places, _ in parts] == [[1, 3], [2, 4], [0]]
    assert [rows.shape for _, rows in parts] == [(2, 2), (2, 4), (1, 5)]
    assert padded([np.array([1]), np.array([2, 3])]).tolist() == [[1, -1], [2, 3]]


def test_losses_of_padded_rows_are_those_of_each_row_alone() -> None:
    reader = open_reader("key", tiny_model(), "bytes", 64, "cpu")
    rows = rows_of(TEXTS)
    found = reader.judge(rows, row_losses)
    assert reader.encode is not None
    for text, loss in zip(reader.encode(rows), found, strict=True):
        logits = reader.module(torch.from_numpy(text)[None]).logits[0, :-1]
        wanted = torch.nn.functional.cross_entropy(logits, torch.from_numpy(text)[1:]) if len(text) > 1 else 0
        assert loss == pytest.approx(float(wanted), abs=1e-5)


def test_a_model_with_the_corpus_tokenizer_reads_rows_as_they_are() -> None:
    reader = open_reader("key", tiny_model(), tiny_model(), 64, "cpu")
    assert reader.encode is None
    rows = np.random.default_rng(0).integers(0, 250, (3, 20)).astype(np.uint16)
    logits = reader.module(torch.from_numpy(rows.astype(np.int64))).logits[:, :-1]
    wanted = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.from_numpy(rows[:, 1:].astype(np.int64)).flatten(), reduction="none"
    )
    assert reader.judge(rows, row_losses) == pytest.approx(
        wanted.view(3, -1).mean(dim=1).detach().numpy(), abs=1e-5
    )


def columns(settings, rows) -> dict[str, np.ndarray]:
    return open_scorer(Scoring(settings, "selection.scores.0", rows.shape[1]))(rows, np.arange(len(rows)))


def test_each_score_gives_a_number_or_a_vector_a_row(classifier) -> None:
    rows, model = rows_of(TEXTS), tiny_model()
    assert columns(LossScore(kind="loss", model=model), rows)["loss"].shape == (3,)
    assert columns(EmbeddingScore(kind="embedding", model=classifier), rows)["embedding"].shape == (3, 16)
    assert columns(GradientScore(kind="gradients", model=model, width=8), rows)["sketch"].shape == (3, 8)
    same = columns(DifferenceScore(kind="difference", model=model, base=model), rows)["score"]
    assert same.tolist() == [0.0] * 3


def test_the_chance_of_a_class_by_its_name_or_number(classifier) -> None:
    from transformers import AutoModelForSequenceClassification

    rows = rows_of(TEXTS)
    named = columns(ClassScore(kind="class", model=classifier, label="good"), rows)["probability"]
    assert (
        columns(ClassScore(kind="class", model=classifier, label=2), rows)["probability"].tolist()
        == named.tolist()
    )
    module = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    reader = open_reader("key", classifier, "bytes", 64, "cpu", "AutoModelForSequenceClassification")
    tokens = torch.from_numpy(reader.encode(rows)[1])[None]
    assert named[1] == pytest.approx(float(module(tokens).logits.softmax(dim=1)[0, 2]), abs=1e-5)
    with pytest.raises(
        InputError, match=r"scores.0.label: must be a class of .*: 0 \(bad\), 1 \(fair\), 2 \(good\)"
    ):
        columns(ClassScore(kind="class", model=classifier, label="best"), rows)


@pytest.mark.parametrize(
    "score, policy",
    [
        ({"kind": "influence", "fit_rows": 20}, "influence"),
        ({"kind": "influence", "over": "max", "rank": 2, "layers": ["*.mlp.*"]}, "influence"),
        ({"kind": "heads", "probes": 3}, {"kind": "threshold", "share": 0.3, "by_group": True}),
    ],
)
def test_a_corpus_is_chosen_by_influence_and_by_heads(tmp_path, places, score, policy) -> None:
    few = {name: write_group(tmp_path / f"few-{name}", "sea", 10, seed) for seed, name in enumerate(places)}
    selection = {"policy": policy, "scores": [{**score, "model": tiny_model()}]}
    if score["kind"] == "influence":
        selection |= {"rows": 8, "target": {"like": few["like"]}}
    chosen = select_corpus(run_of(tmp_path, few, selection), print)
    assert 0 < chosen.record["kept"] < chosen.record["rows"]
    # scores are found again
    lines: list[str] = []
    assert select_corpus(run_of(tmp_path, few, selection), lines.append).record == chosen.record and not lines


def test_a_probe_holds_its_value_twice_and_fits_its_row() -> None:
    rng, texts = np.random.default_rng(0), [["some", "words", "that", "stand", "here"]]
    for length in (96, 200, 4096):
        made = lookup_probe(rng, Bytes().within, texts, length)
        assert len(made.tokens) <= length and made.answer.stop == len(made.tokens)
        assert made.tokens[made.value].tolist() == made.tokens[made.answer].tolist()
        assert made.value.stop < made.answer.start
    with pytest.raises(
        ValueError, match="rows must have room for two keys with their values, but have 16 tokens"
    ):
        lookup_probe(rng, Bytes().within, texts, 16)


class TestRefusals:
    def test_code_in_a_folder_other_files_than_safetensors_and_layers_that_are_not_there(
        self, tmp_path, places, classifier
    ) -> None:
        def refused(score, match):
            with pytest.raises(InputError, match=match) as caught:
                selection = {
                    "policy": {"kind": "top", "score": "it"},
                    "rows": 3,
                    "scores": [{**score, "column": "it"}],
                }
                if score["kind"] == "influence":
                    selection["target"] = {"like": places["like"]}
                select_corpus(run_of(tmp_path, places, selection), print)
            assert "\n" not in str(caught.value)

        own = Path(tmp_path, "own")
        own.mkdir()
        (own / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "mine.Mine"}}))
        refused({"kind": "loss", "model": str(own)}, r"scores.0.model: .* needs code of its own \(auto_map")
        (own / "config.json").write_text(json.dumps({"model_type": "llama"}))
        refused({"kind": "loss", "model": str(own)}, r"scores.0.model: .* has no model.safetensors")
        refused({"kind": "loss", "model": classifier}, r"cannot be opened as AutoModelForCausalLM")
        refused(
            {"kind": "loss", "model": str(tmp_path / "none")}, r"scores.0.model: must be the folder of an exp"
        )
        layers = {"kind": "influence", "model": tiny_model(), "layers": ["none.*"]}
        refused(layers, r"selection.scores.0.layers must name linear layers, such as")

    def test_weights_have_a_digest_of_their_own(self, classifier) -> None:
        assert digest_of_weights("key", classifier) != digest_of_weights("key", tiny_model())


def test_influence_needs_a_target_and_a_typo_is_named(tmp_path, places) -> None:
    score = {"kind": "influence", "model": "m"}
    with pytest.raises(InputError, match=r"selection.target: influence needs at least one group"):
        run_of(tmp_path, places, {"policy": "influence", "scores": [score]})
    with pytest.raises(InputError, match=r"selection.scores.0.ranks: unknown key; did you mean .rank"):
        run_of(tmp_path, places, {"policy": "influence", "scores": [score | {"ranks": 3}]})
    with pytest.raises(
        InputError, match=r"scores.0.kind: must be one of ngrams, loss, .*heads, ches, similarity, table, own"
    ):
        run_of(tmp_path, places, {"policy": "influence", "scores": [{"kind": "influences"}]})


def test_an_exported_adapter_scores_as_its_member(tmp_path) -> None:
    from safetensors.numpy import save

    from shoal.trainables.handover import handed_out
    from shoal.trainables.pretrained import peft_files

    member = causal(path=tiny_model(), given=None)
    member.train(5)
    weights = handed_out(member.state)["weights"]
    adapter = member.pretrained.adapter
    (tmp_path / peft_files.WEIGHTS).write_bytes(save(peft_files.adapter_weights(weights, adapter.rank)))
    config = peft_files.adapter_config(adapter, adapter.rank, tiny_model())
    (tmp_path / peft_files.CONFIG).write_text(json.dumps(config))
    rows = token_rows(6)
    member.module.eval()
    with torch.no_grad():
        expected = member.parts(member.module, torch.from_numpy(rows.astype(np.int64))).nanmean(dim=1)
    reader = open_reader("key", str(tmp_path), tiny_model(), 12, "cpu")
    assert reader.encode is None
    np.testing.assert_allclose(reader.judge(rows, row_losses), expected.numpy(), atol=1e-5)
    base = open_reader("key", tiny_model(), tiny_model(), 12, "cpu")
    assert not np.allclose(base.judge(rows, row_losses), expected.numpy(), atol=1e-4)
    states = open_reader("key", str(tmp_path), tiny_model(), 12, "cpu", "AutoModel")
    with torch.no_grad():
        last = member.module(torch.from_numpy(rows.astype(np.int64)), output_hidden_states=True).hidden_states[
            -1
        ]
    np.testing.assert_allclose(states.judge(rows, row_states), last.mean(dim=1).numpy(), atol=1e-5)
    assert digest_of_weights("key", str(tmp_path)) != digest_of_weights("key", tiny_model())
