"""Write the model and the pairs of examples/preference.yaml: docstrings of Python's standard library.

A small Llama first learns to go on with docstrings. Of a sentence its first words are the prompt; the better
answer is the rest of it, the worse one the same words in another order. `python examples/answers.py` writes
runs/answers/model, functions.jsonl and classes.jsonl, within two minutes (pip install 'shoal[hf]').
"""

import json
import random
from pathlib import Path

import torch
from pairs import texts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PLACE = Path("runs/answers")
WORDS, LENGTH = 1000, 32  # tokens that are known, and those of a row
ASKED, LEAST, MOST = 4, 8, 20  # words of a prompt, and of a sentence at least and at most
STEPS, ROWS = 200, 16


def sentences(found: dict[str, str]) -> list[list[str]]:
    """Return the words of all sentences of a fitting length."""
    split = [sentence.split() for rest in found.values() for sentence in rest.split(". ")]
    return [words for words in split if LEAST <= len(words) <= MOST]


def tokenizer(lines: list[str]) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>")


def trained(rows: Tensor) -> LlamaForCausalLM:
    """Return a model that has learnt rows of tokens."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=WORDS,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
            tie_word_embeddings=True,
        )
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(STEPS):
        batch = rows[torch.randint(len(rows), (ROWS,))]
        loss = model(input_ids=batch, labels=batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 100 == 0 or step == STEPS - 1:
            print(f"step {step}: {loss.item():.2f} nats a token")
    return model


def pair(words: list[str], draws: random.Random) -> dict[str, str]:
    rest = words[ASKED:]
    mixed = rest.copy()
    while mixed == rest:
        draws.shuffle(mixed)
    # an answer goes on with the prompt's sentence, so it begins with a space
    return {
        "question": " ".join(words[:ASKED]),
        "better": " " + " ".join(rest),
        "worse": " " + " ".join(mixed),
    }


if __name__ == "__main__":
    PLACE.mkdir(parents=True, exist_ok=True)
    found = dict(zip(("functions", "classes"), map(sentences, texts()), strict=True))
    lines = [" ".join(words) for each in found.values() for words in each]
    known = tokenizer(lines)
    tokens = [token for ids in known(lines)["input_ids"] for token in [*ids, known.eos_token_id]]
    model = trained(torch.tensor(tokens[: len(tokens) // LENGTH * LENGTH]).view(-1, LENGTH))
    model.save_pretrained(PLACE / "model")
    known.save_pretrained(PLACE / "model")
    draws = random.Random(0)
    for name, each in found.items():
        chosen = [words for words in each if len(set(words[ASKED:])) > 1][:1500]
        pairs = [json.dumps(pair(words, draws)) for words in chosen]
        (PLACE / f"{name}.jsonl").write_text("\n".join(pairs) + "\n")
        print(f"wrote {len(pairs)} pairs to {PLACE}/{name}.jsonl")
