"""How hard rows of tokens are for a trained model, and what it makes of them.

A model is a Decoder or a module of transformers. Rows are arrays of tokens `(rows, length)`; a row that is
shorter than the others ends in tokens of -1, which no model sees.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shoal.trainables.decoder import Decoder, losses_by_token
from shoal.trainables.language import answer_places, decoder_logits
from shoal.trainables.pretrained.rows import asked, mean_counted, seen
from shoal.trainables.searched_numbers import cross_entropy

ROWS_PER_PASS, TOKENS_PER_PASS = 128, 16384
PADDING = -1


def row_losses(model: nn.Module, rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return the mean next-token loss of each row, in nats: `(rows,)`; 0 for a row of one token.

    Rows of instructions have `tokens`, `mask` and `segment`: their answers' tokens alone count.
    """
    if rows.dtype.names is not None:
        return answer_losses(model, rows)
    found = np.empty(len(rows), np.float32)
    with torch.inference_mode():
        for now, part in passes(model, rows):
            losses = losses_by_token(logits_of(model, part), part.clamp(min=0))
            counted = part[:, 1:] >= 0
            if counted.all():
                found[now] = losses.mean(dim=1).cpu().numpy()
                continue
            means = (losses * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
            found[now] = means.cpu().numpy()
    return found


def answer_losses(model: nn.Module, rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return the mean loss of the tokens that count in each row, `(rows,)`; 0 where none does."""
    found = np.empty(len(rows), np.float32)
    with torch.inference_mode():
        for now, batch in passes(model, rows):
            found[now] = counted_losses(model, batch).cpu().numpy()
    return found


def counted_losses(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return the mean loss of the tokens that count in each row of instructions, `(rows,)`."""
    if isinstance(model, Decoder):
        counts = answer_places(batch)
        assert counts is not None
        return mean_counted(losses_by_token(answer_logits(model, batch), batch["tokens"]), counts)
    told, logits = seen(batch), answer_logits(model, batch)
    losses = cross_entropy(logits.flatten(0, 1).float(), told.targets.flatten()).view(told.targets.shape)
    return mean_counted(losses, told.counted)


def answer_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the logits of rows of instructions: no example of a row sees another, `(rows, length, tokens)`."""
    if isinstance(model, Decoder):
        return decoder_logits(model, batch)
    found: Tensor = model(**asked(seen(batch))).logits
    return found


def row_states(model: nn.Module, rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return the mean over the tokens of each row's last hidden states, `(rows, width)`."""
    if rows.dtype.names is not None:
        rows = np.where(rows["segment"] > 0, rows["tokens"].astype(np.int64), PADDING)
    found = [np.empty((0, 0), np.float32)] * (len(rows) == 0)
    with torch.inference_mode():
        for _, part in passes(model, rows):
            states, seen = last_states(model, part).float(), (part >= 0)[:, :, None]
            found.append(((states * seen).sum(dim=1) / seen.sum(dim=1)).cpu().numpy())
    return np.concatenate(found)


def class_chances(model: nn.Module, rows: NDArray[np.integer], place: int) -> NDArray[np.float32]:
    """Return the chance of one class of each row, `(rows,)`, under a classifier of transformers."""
    found = np.empty(len(rows), np.float32)
    with torch.inference_mode():
        for now, part in passes(model, rows):
            logits = model(input_ids=part.clamp(min=0), attention_mask=(part >= 0).long()).logits.float()
            # a single logit is the one of "yes" against "no"
            chances = (
                logits.softmax(dim=1)
                if logits.shape[1] > 1
                else torch.cat([1 - logits.sigmoid(), logits.sigmoid()], 1)
            )
            found[now] = chances[:, place].cpu().numpy()
    return found


def passes(model: nn.Module, rows: NDArray[Any], most: int = ROWS_PER_PASS) -> Iterator[tuple[slice, Any]]:
    """Yield parts of rows as tensors on the model's device, and where each part lies.

    Of rows of instructions a part is a tensor for each field.
    """
    device = next(model.parameters()).device
    length = (rows if rows.dtype.names is None else rows["tokens"]).shape[1]
    each = max(1, min(most, TOKENS_PER_PASS // max(length, 1)))
    for start in range(0, len(rows), each):
        now = slice(start, start + each)
        if rows.dtype.names is None:
            yield now, torch.from_numpy(rows[now].astype(np.int64)).to(device)
        else:
            yield now, on_device(rows[now], device)


def by_length(
    sequences: Sequence[NDArray[np.integer]],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield places and rows `(rows, longest)` of sequences of like length, the shortest first.

    Each batch holds at most `TOKENS_PER_PASS` tokens, padding included, or one row.
    """
    lengths = np.array([len(each) for each in sequences], np.int64)
    waiting: list[int] = []
    for place in np.argsort(lengths, kind="stable").tolist():
        if waiting and (len(waiting) + 1) * int(lengths[place]) > TOKENS_PER_PASS:
            yield np.array(waiting), padded([sequences[each] for each in waiting])
            waiting = []
        waiting.append(place)
    if waiting:
        yield np.array(waiting), padded([sequences[each] for each in waiting])


def padded(sequences: Sequence[NDArray[np.integer]]) -> NDArray[np.int64]:
    found = np.full((len(sequences), max(map(len, sequences))), PADDING, np.int64)
    for row, each in zip(found, sequences, strict=True):
        row[: len(each)] = each
    return found


def logits_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """Return the logits of the next tokens; padding stands behind a row, so no place of it looks there."""
    found = model(tokens.clamp(min=0))
    return getattr(found, "logits", found)


def last_states(model: nn.Module, tokens: Tensor) -> Tensor:
    """Return the last hidden states, `(rows, length, width)`."""
    if not isinstance(model, Decoder):
        seen = tokens >= 0
        states: Tensor = model(input_ids=tokens.clamp(min=0), attention_mask=seen.long()).last_hidden_state
        return states
    found: list[Any] = []
    hook = model.norm.register_forward_hook(lambda module, given, result: found.append(result))
    try:
        model(tokens.clamp(min=0))
    finally:
        hook.remove()
    return found[0]


def row_sketches(model: nn.Module, rows: NDArray[Any], width: int) -> NDArray[np.float32]:
    """Return a random projection of the gradient of each row's mean loss, `(rows, width)`.

    Of rows of instructions it is the loss of their answers' tokens; 0 where none counts.

    Each of the gradient's numbers is added to one place with a random sign (count sketch: Charikar, Chen and
    Farach-Colton, 2002): inner products are kept in expectation, and nothing of size weights x width is held.
    Places and signs depend on the weights' number alone.
    """
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    device = next(iter(weights.values())).device
    count = sum(weight.numel() for weight in weights.values())
    draws = torch.Generator().manual_seed(count)
    places = torch.randint(width, (count,), generator=draws).to(device)
    signs = (2 * torch.randint(2, (count,), generator=draws) - 1).to(device)

    found = np.zeros((len(rows), width), np.float32)
    slopes = row_slopes(model, weights) if rows.dtype.names is None else answer_slopes(model)
    for number in range(len(rows)):
        flat = torch.cat([each.reshape(-1) for each in slopes(rows[number : number + 1])])
        sketch = torch.zeros(width, device=device).index_add_(0, places, flat * signs)
        found[number] = sketch.cpu().numpy()
    return found


def row_slopes(model: nn.Module, weights: dict[str, Tensor]) -> Callable[[Any], Iterable[Tensor]]:
    """Return what gives the gradient of the mean loss of one row `(1, length)`, a tensor for each weight."""

    def loss(values: dict[str, Tensor], row: Tensor) -> Tensor:
        found = torch.func.functional_call(model, values, (row[None],))
        return losses_by_token(getattr(found, "logits", found), row[None]).mean()

    slopes, device = torch.func.grad(loss), next(iter(weights.values())).device
    return lambda row: slopes(weights, torch.from_numpy(row[row >= 0].astype(np.int64)).to(device)).values()


def answer_slopes(model: nn.Module) -> Callable[[Any], Iterable[Tensor]]:
    """Return what gives the gradient of the mean loss of one row's answers, a tensor for each weight."""
    weights = list(model.parameters())

    def slopes(row: Any) -> list[Tensor]:
        batch = on_device(row, weights[0].device)
        trained = [weight.requires_grad for weight in weights]
        try:
            model.requires_grad_(True)
            loss = counted_losses(model, batch).sum()
            return list(torch.autograd.grad(loss, weights, materialize_grads=True))
        finally:
            for weight, was in zip(weights, trained, strict=True):
                weight.requires_grad_(was)

    return slopes


def on_device(rows: NDArray[Any], device: torch.device) -> dict[str, Tensor]:
    """Return rows of instructions as tensors, by field."""
    names = ("tokens", "mask", "segment")
    return {name: torch.from_numpy(rows[name].astype(np.int64)).to(device) for name in names}
