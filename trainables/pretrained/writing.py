"""Text that a model of transformers writes behind prompts: the likeliest token each time."""

from collections.abc import Sequence, Set
from typing import Any

import torch
from numpy.typing import NDArray

from shoal.trainables.answering import until_end


def write_on(
    module: Any, prompts: Sequence[NDArray[Any]], most: int, ends: Set[int], device: torch.device
) -> list[list[int]]:
    """Return what a module writes behind each prompt, at most so many ids, without the token that ends it.

    Nothing that the model's folder says of generation is heeded, such as temperatures and penalties.
    """
    from transformers import GenerationConfig

    length, filler = max(map(len, prompts)), min(ends)
    tokens = torch.full((len(prompts), length), filler, dtype=torch.long)
    there = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):  # padded before the prompt: what is written stands behind it
        tokens[row, length - len(prompt) :] = torch.from_numpy(prompt.astype("int64"))
        there[row, length - len(prompt) :] = 1
    module.generation_config = GenerationConfig()
    chosen = GenerationConfig(
        max_new_tokens=most,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        eos_token_id=sorted(ends),
        pad_token_id=filler,
    )
    found = module.generate(
        input_ids=tokens.to(device), attention_mask=there.to(device), generation_config=chosen
    )
    return [until_end(row, ends) for row in found[:, length:].tolist()]
