"""Small teachers, and runs of kind distill that they teach, for the tests. Needs the extra shoal[hf]."""

from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers

from shoal.search.corpus.batches import MixedBatches
from shoal.search.distill import students
from shoal.search.distill.members import maker_of_networks

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{place}" for place in range(60))]


def save_teacher(folder: Path) -> str:
    """Write a BERT of 3 layers, 4 heads of 12 and 64 words; return its folder."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=24, **sizes)
    transformers.BertModel(config).save_pretrained(folder)
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.save(str(folder / "tokenizer.json"))
    return str(folder)


def save_llama(folder: Path, teacher: str, seed: int = 0, groups: int = 2, words: int = len(WORDS)) -> str:
    """Write a Llama as large as the BERT, with its tokenizer; return its folder."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": groups}
    config = transformers.LlamaConfig(
        vocab_size=words, max_position_embeddings=24, intermediate_size=96, **sizes
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(Path(teacher, "tokenizer.json").read_bytes())
    return str(folder)


def write_run(folder: Path, teacher: str) -> str:
    """Write the file of a small run into a folder; return its path."""
    text = f"""
name: small
kind: distill
directory: {folder}/run
data: {{groups: {{mine: {folder}}}, sequence_length: 12}}
distill:
  teacher: {teacher}
  relation_heads: 12
  spaces:
    low: {{depths: [1, 2], heads: [1, 2], widths: [24, 36], ratios: [1, 2]}}
    high: {{depths: [2, 3], heads: [3, 4], widths: [36, 48], ratios: [1, 2]}}
training: {{steps: 4, warmup: 1, batch: 4}}
hyperparameters: {{learning_rate: {{kind: float, low: 0.001, high: 0.01, log: true}}}}
population: {{members: 4, interval: 2, exploit: {{kind: truncation, fraction: 0.5}}}}
"""
    path = folder / "run.yaml"
    path.write_text(text)
    return str(path)


class Stream:
    """Rows of one group in memory."""

    def take(self, cursor: int, count: int) -> np.ndarray:
        return rows(cursor, count)


def rows(first: int, count: int) -> np.ndarray:
    each = [np.random.default_rng(first + row).integers(4, 64, 12) for row in range(count)]
    return np.stack(each).astype("uint16")


def batches() -> MixedBatches:
    return MixedBatches({"mine": Stream()}, np.ones(1), 4)


HELD_OUT = {"validation": {"mine": rows(900, 6)}, "test": {"mine": rows(950, 6)}}


def networks(run, rate: float = 0.002):
    """Return the run's four members, as on one worker; their rates are one to four times `rate`."""
    values = {number: {"learning_rate": rate * (number + 1)} for number in range(4)}
    make = maker_of_networks(run, batches, HELD_OUT, "cpu")
    return {number: make(number, each) for number, each in values.items()}


def without_ray(monkeypatch) -> None:
    """Run the search's tasks in this process."""
    monkeypatch.setattr(students, "capacity", lambda: {"CPU": 3.0})

    def map_tasks(function, shared, inputs, gpus=0.0):
        return [function(shared, each) for each in inputs]

    monkeypatch.setattr(students, "map_tasks", map_tasks)
