"""What is exported of a pretrained member loads in peft and in transformers, and says the same."""

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from transformers import AutoModelForCausalLM, AutoTokenizer

from shoal.cluster.storage import Store
from shoal.search.config.run import Run
from shoal.search.errors import InputError
from shoal.search.records.pretrained import export_pretrained, used_rank
from tests.helpers.pretrained import ADAPTER, causal, causal_run, tiny_model

TOKENS = torch.arange(40).view(2, 20)


def run_with(tmp_path, **model: Any) -> Run:
    values = causal_run(str(tmp_path), groups={"code": "installed"})
    values["model"] = {"path": tiny_model(), **model}
    values["data"]["tokenizer"] = tiny_model()
    return Run.model_validate(values)


def trained(**settings: Any) -> Any:
    member = causal(path=tiny_model(), **settings)
    member.train(5)
    member.module.eval()
    return member


def logits(module: Any) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(input_ids=TOKENS).logits


def test_an_adapter_loads_in_peft_with_the_ranks_in_use(tmp_path) -> None:
    peft = pytest.importorskip("peft")
    member = trained(rank=3)
    weights = member.state()["weights"]
    assert used_rank(weights) == 3
    adapter = {"kind": "lora", "rank": ADAPTER.rank, "alpha": ADAPTER.alpha}
    target = Store(str(tmp_path / "out"))
    run = run_with(tmp_path, adapter=adapter)
    name = export_pretrained(run, weights, {"step": 5}, target, merge=False)
    assert name == "adapter_model.safetensors" and target.read_json("shoal.json") == {"step": 5}
    base = AutoModelForCausalLM.from_pretrained(tiny_model())
    loaded = peft.PeftModel.from_pretrained(base, target.uri)
    assert loaded.peft_config["default"].r == 3
    assert torch.allclose(logits(loaded), logits(member.module), atol=1e-5)
    # and the other way round: what peft trained is gone on with
    again = causal(path=tiny_model(), given={"begin": target.uri})
    assert torch.allclose(logits(again.module), logits(member.module), atol=1e-5)
    assert not torch.allclose(logits(again.module), logits(causal(path=tiny_model()).module), atol=1e-3)


def test_a_merged_adapter_and_all_weights_load_in_transformers(tmp_path) -> None:
    adapter = {"kind": "lora", "rank": ADAPTER.rank, "alpha": ADAPTER.alpha}
    for name, member, model in (
        ("merged", trained(), {"adapter": adapter}),
        ("whole", trained(adapter=None), {}),
    ):
        target = Store(str(tmp_path / name))
        run = run_with(tmp_path, **model)
        file = export_pretrained(run, member.state()["weights"], {"step": 5}, target, name == "merged")
        assert file == "model.safetensors" and target.read_json("config.json")["shoal"] == {"step": 5}
        loaded = AutoModelForCausalLM.from_pretrained(target.uri)
        assert torch.allclose(logits(loaded), logits(member.module), atol=1e-5)
        assert AutoTokenizer.from_pretrained(target.uri)("ab").input_ids


def test_all_weights_have_nothing_to_merge(tmp_path) -> None:
    with pytest.raises(InputError, match="--merge"):
        export_pretrained(run_with(tmp_path), {}, {}, Store(str(tmp_path)), merge=True)


def test_the_rank_in_use_ends_with_the_last_row_that_is_not_zero() -> None:
    down = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    assert used_rank({"a.down": down, "a.up": np.zeros((2, 4))}) == 3
    assert used_rank({"a.down": np.zeros((4, 2))}) == 1
