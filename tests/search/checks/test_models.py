"""Bad input of pretrained models: one clear line each, before anything trains."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("transformers")

from rich.console import Console

from shoal.search.errors import InputError
from shoal.search.load import load_run
from shoal.search.runs.population import prepare_run
from tests.helpers.pretrained import causal_run, letters, tiny_model


def load(tmp_path: Path, **changes: Any) -> Any:
    texts = tmp_path / "texts"
    texts.mkdir(exist_ok=True)
    (texts / "a.txt").write_text("a text of several words. " * 20)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(causal_run(str(tmp_path), groups={"code": f"{texts}/*.txt"}, **changes)))
    return load_run(str(file))


def model_in(tmp_path: Path, **config: Any) -> Path:
    """Return a copy of the tiny model whose configuration says something else."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model(), folder)
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | config))
    return folder


def test_a_file_is_read_with_the_models_own_tokenizer(tmp_path) -> None:
    run = load(tmp_path)
    assert run.data.tokenizer == tiny_model() and run.described.hyperparameters is not None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {}}, "model.path: is required with trainable: causal_lm"),
        ({"model__path": "./no/such"}, "model.path: must be the folder of a model"),
        ({"model__path": "package:no_such_package"}, "model.path: no package `no_such_package` is installed"),
        (
            {"model__adapter": {"kind": "lora", "targets": ["q_prog"]}},
            "model.adapter.targets: no linear layer is called q_prog; did you mean `q_proj`?",
        ),
        (
            {"model__adapter": {"kind": "lora", "rank": 9}},
            "model.adapter.rank: must be at most the width of each target, which is 8 for v_proj, got 9",
        ),
        ({"model__adapter": {"kind": "dora"}}, "model.adapter.kind: must be one of lora"),
        ({"model__adapter": {"kind": "lora", "rank": 0}}, "model.adapter.rank: must be at least 1"),
        (
            {"hyperparameters__rank": {"kind": "int", "low": 1, "high": 5}},
            "hyperparameters.rank: must be whole numbers from 1 to model.adapter.rank (4)",
        ),
        ({"model__adapter": None}, "hyperparameters.rank: needs model.adapter"),
        (
            {"model__adapter": None, "model__freeze": ["nothing.*"], "hyperparameters": {}}
            | {"population": {"members": 2, "interval": 2, "exploit": "none"}},
            "model.freeze must name weights of the model, but none fits nothing.*",
        ),
        ({"model__fresh": ["lm_head.*"]}, "model: fresh and freeze must be left out with an adapter"),
        ({"model__layers": 3}, "model.layers: the causal_lm does not look at it"),
        ({"data__sequence_length": 128}, "data.sequence_length: must be at most the model's 64 positions"),
        ({"training__accumulate": 5}, "training.accumulate: must be at most training.batch (4) rows, got 5"),
        ({"training__precision": "float16"}, "training.precision: must be one of float32, bfloat16"),
        (
            {"hyperparameters__precision": {"kind": "categorical", "values": ["float32", "bfloat16"]}},
            "no such hyperparameter",
        ),
    ],
)
def test_a_mistake_is_named_in_one_line(tmp_path, changes, said) -> None:
    with pytest.raises(InputError) as error:
        load(tmp_path, **changes)
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_nothing_from_a_models_folder_is_run(tmp_path) -> None:
    folder = model_in(tmp_path, auto_map={"AutoModelForCausalLM": "evil.Model"})
    (folder / "evil.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(InputError, match="needs code of its own"):
        load(tmp_path, model__path=str(folder))


def test_only_safetensors_are_read(tmp_path) -> None:
    folder = model_in(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="only safetensors are read"):
        load(tmp_path, model__path=str(folder))


def test_a_model_of_an_unknown_kind_is_refused(tmp_path) -> None:
    folder = model_in(tmp_path, model_type="no_such_kind", architectures=["NoSuch"])
    with pytest.raises(InputError, match="is no causal language model of transformers"):
        load(tmp_path, model__path=str(folder))


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path) -> None:
    folder = model_in(tmp_path, vocab_size=200)
    letters(str(folder))
    with pytest.raises(InputError, match=r"must have at most the model's 200 tokens, but .* has 257"):
        load(tmp_path, model__path=str(folder))


def test_the_decoder_has_no_path(tmp_path) -> None:
    with pytest.raises(InputError, match=r"model\.path: the decoder does not look at it"):
        load(
            tmp_path, trainable="decoder", hyperparameters={"dropout": {"kind": "float", "low": 0, "high": 0.5}}
        )


def test_the_decoder_recomputes_nothing(tmp_path) -> None:
    more = {"hyperparameters": {"dropout": {"kind": "float", "low": 0, "high": 0.5}}}
    with pytest.raises(InputError, match=r"model\.gradient_checkpointing: the decoder does not look at it"):
        load(tmp_path, trainable="decoder", model={"gradient_checkpointing": True}, **more)


def test_a_folder_without_a_model_is_named(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"model\.path: must be a model with config\.json, got .*empty"):
        load(tmp_path, model__path=str(tmp_path / "empty"))


def test_a_chat_needs_the_models_template(tmp_path) -> None:
    with pytest.raises(InputError, match=r"data\.tokenizer: a chat template must stand in .*kind: instruction"):
        load(tmp_path, data__format={"kind": "chat"})


@pytest.mark.parametrize(
    ("shape", "length", "said"),
    [
        (
            {"prompt": "{questoin}?", "answer": "a"},
            32,
            r"no field 'questoin' \(data.format\); did you mean `question`",
        ),
        ({"prompt": "question", "answer": "a"}, 16, r"not one of 40 examples fits .*too_long: cut\."),
        (
            {"prompt": "question", "answer": "a", "too_long": "cut"},
            16,
            "with a token of its answer; raise data.seq",
        ),
    ],
)
def test_rows_that_cannot_be_are_named_before_anything_trains(tmp_path, shape, length, said) -> None:
    rows = [{"question": f"a long question, number {number}", "a": "b"} for number in range(40)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    more = {"data__groups": {"one": f"{tmp_path}/in.jsonl"}, "data__sequence_length": length}
    run = load(tmp_path, data__format={"kind": "instruction", **shape}, **more)
    with pytest.raises(InputError, match=said) as error:
        prepare_run(run, Console(quiet=True))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"sampling": {"rule": "easy_to_hard", "scorer": "best"}, "data__format": "chat"},
            "sampling.scorer: scores rows of text, got trainable causal_lm",
        ),
        (
            {"selection": {"policy": "top", "rows": 4, "scores": [{"kind": "heads", "model": "best"}]}}
            | {"data__format": {"kind": "instruction", "prompt": "q", "answer": "a"}},
            "selection.scores.0: heads does not read data.rows: instruction; take ngrams, loss, difference, "
            "embedding, gradients, influence, similarity, table or own",
        ),
        (
            {"data__format": {"kind": "preference"}},
            "data.rows: the causal_lm takes tokens or instruction, got preference",
        ),
    ],
)
def test_readers_of_plain_tokens_refuse_other_rows(tmp_path, changes, said) -> None:
    with pytest.raises(InputError) as error:
        load(tmp_path, **changes)
    assert str(error.value).endswith(said) and len(str(error.value).splitlines()) == 1
