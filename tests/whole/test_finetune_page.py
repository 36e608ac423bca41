"""The commands of docs/finetune.md, one after another, on a tiny model."""

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from tests.helpers.pretrained import tiny_model
from tests.helpers.runs import ROOT, shoal

PAGE = (ROOT / "docs/finetune.md").read_text()


def questions(folder: Path) -> list[str]:
    """Write examples of two groups; return the changes that name them and the model."""
    for group in ("functions", "classes"):
        lines = [{"question": f"{group} {number}?", "answer": str(number)} for number in range(80)]
        (folder / f"{group}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    groups = ", ".join(f"{group}: {folder}/{group}.jsonl" for group in ("functions", "classes"))
    return [
        f"data.groups={{{groups}}}",
        f"data.corpus={folder}/corpus",
        f"model.path={tiny_model()}",
        f"directory={folder}/runs/finetune",
        "data.sequence_length=32",
        "population.members=5",
    ]


@pytest.mark.ray
@pytest.mark.slow
def test_the_page_goes_from_questions_to_an_adapter_and_a_whole_model(tmp_path) -> None:
    changes = questions(tmp_path)
    file, place = "examples/finetune.yaml", "runs/finetune"
    for command in (f"validate {file}", f"run {file}", f"export {place} --to", f"export {place} --merge"):
        assert f"shoal {command}" in PAGE
    shoal("validate", file, *changes)
    assert "model.begin=" in shoal("run", file, *changes), "it says how to go on"
    run = str(tmp_path / place)
    shoal("export", run, "--to", str(tmp_path / "adapter"))
    shoal("export", run, "--merge", "--to", str(tmp_path / "merged"))
    assert (tmp_path / "adapter/adapter_config.json").exists()
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").config.vocab_size == 260
