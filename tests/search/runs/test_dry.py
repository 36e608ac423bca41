"""A dry run makes members in this process, and says in one line what of a class does not work."""

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from shoal.search.errors import InputError
from shoal.search.exported import check_reference
from shoal.search.load import load_run
from shoal.search.members.build import open_reference
from shoal.search.runs.dry import try_out
from tests.helpers.runs import ROOT, TOY, write_texts
from tests.helpers.small_files import CLASS, OWN

SCORE, LOAD = "return float(self.trained), {}", 'self.trained = state["trained"]'
COUNTED = CLASS.replace("return 0.0, {}", SCORE)
BIGRAMS = "from tests.helpers.own_networks import Bigrams\n\n\nclass Slope(Bigrams):\n    {}\n"
TEXTS = """\
name: texts
trainable: MODULE:Slope
data: {groups: {letters: letters, digits: digits}, sequence_length: 16, validation: 0.2, test: 0.2}
training: {steps: 40, batch: 4, evaluation_rows: 8}
hyperparameters: {learning_rate: {kind: float, low: 0.001, high: 0.1, log: true}}
population: {members: 4, interval: 10}
cluster: {broods: 1}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def tried(file: str, name: str, source: str, *changes: str) -> str:
    Path(f"dry_{name}.py").write_text(source)
    Path("run.yaml").write_text(file.replace("MODULE", f"dry_{name}"))
    said = io.StringIO()
    try_out(load_run("run.yaml", changes), Console(file=said, width=200))
    return said.getvalue()


def test_a_class_with_its_own_loop_is_tried_without_ray() -> None:
    said = tried(OWN, "own", COUNTED)
    assert "make, 2 members" in said and "score 1.0000" in said and "it trains on as its donor does" in said
    assert "MiB in a checkpoint" in said


def test_the_toy_is_tried() -> None:
    said = io.StringIO()
    try_out(load_run(TOY), Console(file=said, width=200))
    assert "Toy" in said.getvalue() and "it trains on as its donor does" in said.getvalue()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (SCORE, "return None, {}", "score, validation: .*must be a finite number"),
        (SCORE, "return 1 / 0, {}", "score, validation: dry_.*ZeroDivisionError"),
        ("self.trained += steps", "self.trained = 0", "must count the weights' steps, 1 here, but is 0"),
        ('"trained": self.trained}', '"other": object()}', "state: .*which a checkpoint cannot keep"),
        (LOAD, 'raise KeyError("mine")', "load, by another member: .*KeyError: 'mine'"),
        (LOAD, "pass", "load, by another member: .*must count the weights' steps"),
        ("self.chosen, self.trained =", "self.chosen, self.other =", "trained"),
    ],
)
def test_a_slip_is_one_line_that_names_the_part(old: str, new: str, said: str) -> None:
    name = f"slip_{abs(hash((old, new)))}"
    with pytest.raises(InputError, match=said) as raised:
        tried(OWN, name, COUNTED.replace(old, new))
    assert "\n" not in str(raised.value) and f"trainable: dry_{name}:Slope: " in str(raised.value)
    assert "Traceback" in raised.value.trace


def test_a_network_that_takes_tokens_is_tried_with_its_policies(tmp_path) -> None:
    write_texts(tmp_path)
    policies = ["mixing={policy: {kind: aioli, noise: 0}}", "sampling.rule=infobatch"]
    said = tried(TEXTS, "tokens", BIGRAMS.format("pass"), *policies)
    assert "MixedSlope, 4,369 trained weights" in said and "it trains on as its donor does" in said
    assert "letters" in said and "loss 5." in said


def test_a_searched_width_is_found_out_before_the_run(tmp_path) -> None:
    write_texts(tmp_path)
    init = (
        "def __init__(self, recipe, hyperparameters, batches, held_out, seed, device, vocabulary):\n"
        "        chosen = dict(hyperparameters)\n"
        "        self.wide = chosen.pop('wide')\n"
        "        super().__init__(recipe, chosen, batches, held_out, seed, device, vocabulary=vocabulary)\n\n"
        "    def build(self):\n"
        "        self.width = self.wide\n"
        "        return super().build()\n\n"
        "    def adopt(self, hyperparameters):\n"
        "        chosen = dict(hyperparameters)\n"
        "        chosen.pop('wide', None)\n"
        "        super().adopt(chosen)\n"
    )
    wide = "hyperparameters.wide={kind: int, low: 2, high: 64}"
    with pytest.raises(InputError, match=r"load, by another member: .*the copied array must be"):
        tried(TEXTS, "wide", BIGRAMS.format(init), wide, "seed=3")


def test_columns_with_words_are_tried(tmp_path) -> None:
    rng = np.random.default_rng(0)
    for group in ("one", "two"):
        points, labels = rng.normal(size=(200, 3)), rng.integers(0, 2, 200)
        columns = {"point": points.tolist(), "label": labels, "word": [f"w{place}" for place in range(200)]}
        pq.write_table(pa.table(columns), f"{group}.parquet")
    source = (
        "from torch import nn\nfrom torch.nn.functional import cross_entropy\n"
        "from shoal.trainables.network import Network\n\n\nclass Slope(Network):\n"
        "    takes = {'columns'}\n    by_row = True\n\n"
        "    def build(self):\n        return nn.Linear(3, 2)\n\n"
        "    def loss(self, module, batch, numbers):\n"
        "        assert batch['word'][0].startswith('w')\n"
        "        return cross_entropy(module(batch['point']), batch['label'], reduction='none')\n"
    )
    columns = "data.columns={point: {kind: tensor, shape: [3]}, label: class, word: {kind: string, length: 8}}"
    groups = "data.groups={one: one.parquet, two: two.parquet}"
    file = TEXTS.replace(", sequence_length: 16", "")
    said = tried(file, "words", source, columns, groups)
    assert "8 trained weights" in said and "it trains on as its donor does" in said


def test_a_reference_is_an_exported_member_of_the_same_class(tmp_path) -> None:
    write_texts(tmp_path)
    doremi = ["mixing={policy: doremi, reference: best}"]
    Path("best").mkdir()
    weights = {"0.weight": (257, 3), "1.weight": (257, 3), "1.bias": (257,)}
    rng = np.random.default_rng(0)
    save_file(
        {name: rng.normal(size=shape).astype(np.float32) for name, shape in weights.items()},
        "best/model.safetensors",
    )
    config = {"trainable": "dry_reference:Slope", "settings": {"width": 3}, "step": 50}
    Path("best/config.json").write_text(json.dumps(config))
    said = tried(TEXTS, "reference", BIGRAMS.format("pass"), *doremi)
    assert "it trains on as its donor does" in said
    run = load_run("run.yaml", doremi)
    found = open_reference(run, "best")
    assert found.steps == 50
    Path("best/config.json").write_text(json.dumps(config | {"trainable": "decoder"}))
    with pytest.raises(InputError, match=r"must be of the members' class, dry_reference:Slope, but .*decoder"):
        check_reference(run)


def test_the_demo_is_tried(tmp_path) -> None:
    write_texts(tmp_path)
    groups = "data.groups={letters: letters, digits: digits}"
    said = io.StringIO()
    small = ["model={layers: 1, heads: 2, width: 16}", f"directory={tmp_path}/run"]
    run = load_run(str(ROOT / "examples/demo.yaml"), [groups, f"data.corpus={tmp_path}/corpus", *small])
    try_out(run, Console(file=said, width=200))
    assert "MixedLanguageModel" in said.getvalue() and "validation" in said.getvalue()


ANSWERS = """\
from torch import nn
from torch.nn.functional import cross_entropy

from shoal.trainables.network import Network


class Slope(Network):
    takes = {"instruction"}
    by_row = True
    vocabulary: int

    def build(self):
        return nn.Sequential(nn.Embedding(self.vocabulary, 8), nn.Linear(8, self.vocabulary))

    def loss(self, module, batch, numbers):
        tokens, counts = batch["tokens"].long(), batch["mask"][:, 1:].float()
        logits = module(tokens[:, :-1])
        losses = cross_entropy(logits.mT, tokens[:, 1:], reduction="none")
        return (losses * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1)
"""
WRITES = """
    writes = True

    def write(self, module, prompts, most, ends):
        return [list(b"yes")[:most] for _ in prompts]
"""
CHOICE, MATCH = "{kind: choice, choices: ['yes', 'no']}", "{kind: exact_match, tokens: 3, groups: even}"


@pytest.mark.parametrize(
    ("name", "source", "score", "said"),
    [
        ("chooses", ANSWERS, CHOICE, "score, validation .*right_even"),
        # all even questions are answered with yes
        ("writes", ANSWERS + WRITES, MATCH, "right_even 1.0000, right_odd 0.0000"),
    ],
)
def test_a_class_is_scored_by_its_answers(name: str, source: str, score: str, said: str) -> None:
    for group, answer in (("even", "yes"), ("odd", "no")):
        rows = [{"q": f"is {number} {group}?", "a": answer} for number in range(60)]
        Path(f"{group}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = tried(
        TEXTS.replace("groups: {letters: letters, digits: digits}, sequence_length: 16, ", ""),
        name,
        source,
        "data.groups={even: even.jsonl, odd: odd.jsonl}",
        "data.format={kind: instruction, prompt: q, answer: a}",
        "data.sequence_length=32",
        "population.interval=1",
        "training.warmup=0",
        f"score={score}",
    )
    assert re.search(said, found) and "it trains on as its donor does" in found


def test_a_class_that_does_not_write_is_not_ranked_by_what_it_writes() -> None:
    file = TEXTS.replace("groups: {letters: letters, digits: digits}", "groups: {letters: letters}")
    form = "data.format={kind: instruction, prompt: q, answer: a}"
    with pytest.raises(InputError, match=r"score: exact_match needs members that write, but .*`writes = True`"):
        tried(file, "mute", ANSWERS, form, f"score={MATCH.replace('even', 'letters')}")
