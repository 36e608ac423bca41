"""Runs of pretrained models in sections that were made for others: references, searches of mixtures, URIs."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("transformers")

from rich.console import Console

from shoal.cluster.storage import Store
from shoal.policies.mixers.doremi import clipped_excess
from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.load import dump, load_run
from shoal.search.members.build import open_reference
from shoal.search.models import local_folder
from shoal.search.records import directory
from shoal.search.records.pretrained import export_pretrained
from shoal.search.runs.dry import try_out
from shoal.search.runs.mixture import as_population, design, with_small_model
from shoal.search.runs.population import prepare_run
from tests.helpers.pretrained import ADAPTER, causal, causal_run, instruction_rows, tiny_model, token_rows

LETTERS = {"kind": "instruction", "prompt": "q", "answer": "a"}
QUIET = Console(quiet=True)


def load(tmp_path: Path, **changes: Any) -> Run:
    groups = {}
    for group in ("one", "two"):
        rows = ({"q": f"{group} {number}", "a": "abc"[number % 3] * 4} for number in range(60))
        (tmp_path / f"{group}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        groups[group] = str(tmp_path / f"{group}.jsonl")
    held = {"data__format": LETTERS, "data__validation": 0.2, "data__test": 0.2}
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(causal_run(str(tmp_path), groups=groups, **{**held, **changes})))
    return load_run(str(file))


def exported(tmp_path: Path, merge: bool = False, seed: int = 0) -> tuple[Any, str]:
    """Train a member and export it; return it and the folder."""
    member = causal(seed, path=tiny_model())
    member.train(5)
    values = causal_run(str(tmp_path), groups={"code": "installed"})
    values["model"] = {"path": tiny_model(), "adapter": {"kind": "lora", "rank": ADAPTER.rank, "alpha": 8}}
    values["data"]["tokenizer"] = tiny_model()
    target = Store(str(tmp_path / f"best-{merge}-{seed}"))
    told = {"trainable": "causal_lm", "step": 5}
    export_pretrained(Run.model_validate(values), member.state()["weights"], told, target, merge)
    return member, target.uri


def tried(run: Run) -> str:
    said = io.StringIO()
    try_out(run, Console(file=said, width=200))
    return said.getvalue()


def test_tokens_of_a_prompt_do_not_count_in_an_excess() -> None:
    """Row 0: 3 - 1 = 2 and 1 - 2 < 0, so 2 over two tokens; row 1 has one token, 4 - 1 = 3: (2 + 0 + 3) / 3."""
    ours = np.array([[3.0, 1.0, np.nan], [np.nan, 4.0, np.nan]])
    theirs = np.array([[1.0, 2.0, np.nan], [np.nan, 1.0, np.nan]])
    found = clipped_excess(ours, theirs, np.array([1, 1]), 2)
    assert np.isnan(found[0]) and found[1] == pytest.approx(5 / 3)


@pytest.mark.parametrize("merge", [False, True], ids=["adapter", "merged"])
@pytest.mark.parametrize("rows", [token_rows(3), instruction_rows(3)], ids=["tokens", "instructions"])
def test_a_reference_gives_the_losses_of_the_exported_member(tmp_path, merge: bool, rows: Any) -> None:
    import torch

    from shoal.trainables.arrays import to_tensors

    member, folder = exported(tmp_path, merge)
    reference = open_reference(load(tmp_path), folder)
    batch = to_tensors(rows, torch.device("cpu"))
    with torch.no_grad():
        own = member.parts(member.module.eval(), batch)
    assert reference.steps == 5
    assert torch.allclose(torch.from_numpy(reference.losses(batch)), own, atol=1e-4, equal_nan=True)
    assert torch.isnan(own).any()


@pytest.mark.parametrize("place", ["{}", "file://{}"])
def test_doremi_compares_adapters_with_an_exported_one(tmp_path, monkeypatch, place: str) -> None:
    _, folder = exported(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))  # what a URI names is copied there
    said = tried(load(tmp_path, mixing={"policy": "doremi", "reference": place.format(folder)}))
    assert "MixedCausalModel" in said and "it trains on as its donor does" in said


@pytest.mark.parametrize("policy", ["aioli", "doge", "skill_it"])
def test_policies_mix_groups_for_adapters(tmp_path, policy: str) -> None:
    graph = {"graph": {"one": {"one": 1.0}, "two": {"two": 1.0}}, "every": 10}
    more = {"skill_it": graph, "aioli": {"noise": 0, "every": 20, "sweeps": 1}}.get(policy, {})
    said = tried(load(tmp_path, mixing={"policy": {"kind": policy, **more}}, training__steps=40))
    assert "it trains on as its donor does" in said


def test_a_reference_of_another_kind_is_refused(tmp_path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"mixing\.reference: must be the folder of an exported causal_lm"):
        load(tmp_path, mixing={"policy": "doremi", "reference": str(tmp_path / "other")})


def mixture(tmp_path: Path, **changes: Any) -> Run:
    alone = {"hyperparameters": {}, "population": {}, "kind": "mixture"}
    return load(tmp_path, swarm={"runs": 4, "steps": 5, "draws": 10, "repeats": 1}, **alone, **changes)


def test_a_search_for_a_mixture_trains_the_runs_own_model(tmp_path) -> None:
    run = prepare_run(mixture(tmp_path), QUIET)
    swarm = as_population(with_small_model(run), "swarm", 5, 1, design(run))
    assert swarm.model == run.model and swarm.model.adapter.rank == 4
    assert Run.model_validate(yaml.safe_load(dump(run))).swarm == run.swarm
    assert "MixedCausalModel, 448 trained weights" in tried(swarm)


def test_a_search_for_a_mixture_has_no_smaller_pretrained_model(tmp_path) -> None:
    with pytest.raises(InputError, match=r"swarm\.model: small runs of a causal_lm train the run's own model"):
        load(
            tmp_path,
            kind="mixture",
            hyperparameters={},
            population={},
            swarm={"runs": 4, "model": {"layers": 2}},
        )


def test_a_search_for_a_mixture_is_not_scored_by_answers(tmp_path) -> None:
    with pytest.raises(InputError, match=r"score: only members of kind: population are ranked by it"):
        mixture(tmp_path, score="exact_match")


def test_a_model_of_a_uri_is_copied_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = local_folder("model.path", f"file://{tiny_model()}")
    names = sorted(file.name for file in Path(folder).iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(names)
    weights = Path(folder, "model.safetensors")
    before = weights.stat().st_mtime_ns
    assert local_folder("model.path", f"file://{tiny_model()}") == folder
    assert weights.stat().st_mtime_ns == before
    run = load(tmp_path, model__path=f"file://{tiny_model()}")
    assert run.data.tokenizer == folder and "448 trained weights" in tried(run)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("no-such/model", "model.path: no-such/model is no folder here, and cannot be had from the hub"),
        ("file:///no/such/folder", "model.path: must be the folder of a model"),
        ("nothing://place", "model.path: nothing://place cannot be read"),
    ],
)
def test_a_model_that_is_not_to_be_had_is_one_line(tmp_path, monkeypatch, path: str, said: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as error:
        load(tmp_path, model__path=path)
    assert said in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_run_goes_on_with_its_own_base_alone(tmp_path) -> None:
    """The weights of the base are changed in place after the run has begun."""
    import shutil

    model = tmp_path / "model"
    shutil.copytree(tiny_model(), model)
    run = prepare_run(load(tmp_path, model__path=str(model)), QUIET)
    directory.create(run)
    assert directory.going_on(run.directory)[0].model.path == str(model)
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.path: .* is not what the run began with"):
        directory.going_on(run.directory)
