"""A model of transformers that looks both ways, and finds tokens which are hidden from it.

Its configuration says so by `is_causal: false`, which transformers heeds; a row of several examples also
brings a mask.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shoal.trainables.decoder import seen_both_ways
from shoal.trainables.hiding import with_hidden
from shoal.trainables.pretrained.rows import Seen, asked, places_within
from shoal.trainables.searched_numbers import FloatOrTensor

NO_VECTOR = -1  # stands for a token that has no vector


class NoVectors:
    """What an embedding does before and after it looks tokens up: those of -1 have zeros for a vector."""

    there: Tensor

    def before(self, table: nn.Module, given: tuple[Tensor]) -> Tensor:
        self.there = given[0] != NO_VECTOR
        return given[0].clamp(min=0)

    def after(self, table: nn.Module, given: tuple[Tensor], vectors: Tensor) -> Tensor:
        return vectors * self.there[..., None]


def look_both_ways(module: Any) -> None:
    """Let a model look both ways from now on, in place; raises ValueError if it cannot."""
    module.config.is_causal = False
    made, table = NoVectors(), module.get_input_embeddings()
    table.register_forward_pre_hook(made.before)
    table.register_forward_hook(made.after)
    check_sight(module)


def check_sight(module: Any) -> None:
    """Raise ValueError unless each place looks at all others of its example, and at none of another one."""
    whole, parts = torch.ones(1, 6, dtype=torch.long), torch.tensor([[1, 1, 1, 2, 2, 2]])
    for segment in (whole, parts):
        try:
            right = torch.equal(looked_at(module, segment), segment[0] == segment[0, 3])
        except (RuntimeError, IndexError, TypeError) as error:
            raise ValueError(f"{cannot(module)}: {str(error).splitlines()[0]}") from error
        if not right:
            raise ValueError(cannot(module))


def cannot(module: nn.Module) -> str:
    return (
        "objective masked needs a model whose places look both ways, each within its own example, which "
        f"{type(module).__name__} does not; take a model of another family, such as Llama or Qwen"
    )


def looked_at(module: Any, segment: Tensor) -> Tensor:
    """Return at which places the logits of place 3 look, `(length,)`: where their gradient is not 0."""
    table, found = module.get_input_embeddings(), []

    def keep(part: nn.Module, given: Any, vectors: Tensor) -> Tensor:
        # drawn ones, since at a vector of zeros a gate may close the way to its neighbours
        drawn = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
        found.append(drawn.to(vectors).requires_grad_())
        return found[0]

    tokens = torch.tensor([[NO_VECTOR, 0, 0, 0, 0, 0]], device=table.weight.device)
    hook = table.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            rows = within_examples(Seen(tokens, tokens, tokens), segment.to(tokens.device))
            logits = module(**asked(rows)).logits
            (slope,) = torch.autograd.grad(logits[0, 3].float().sum(), found)
    finally:
        hook.remove()
    return slope[0].abs().amax(dim=-1).cpu() > 0


def hidden_rows(batch: Any, vocabulary: int, training: bool, numbers: Mapping[str, FloatOrTensor]) -> Seen:
    """Return rows with hidden tokens, each of which is to be found at its own place (see `hiding`)."""
    rows = with_hidden(batch, vocabulary, training, numbers)
    read = rows.read.masked_fill(rows.blank, NO_VECTOR)
    found = Seen(read, rows.tokens, rows.found.float())
    return found if rows.segment is None else within_examples(found, rows.segment)


def within_examples(rows: Seen, segment: Tensor) -> Seen:
    """Return rows whose places look at all of their own example, and at nothing else."""
    if bool((segment == 1).all()):
        return rows
    return rows._replace(positions=places_within(segment), attention=seen_both_ways(segment))
