"""How hard rows of tokens are for a trained decoder."""

import numpy as np
import torch
from numpy.typing import NDArray

from shoal.trainables.decoder import Decoder, token_losses

ROWS_PER_PASS = 128


def row_losses(model: Decoder, rows: NDArray[np.integer]) -> NDArray[np.float32]:
    """Return the mean next-token loss of each row of tokens `(rows, sequence_length)`, in nats: `(rows,)`."""
    device = model.embedding.weight.device
    found = np.empty(len(rows), np.float32)
    with torch.inference_mode():
        for start in range(0, len(rows), ROWS_PER_PASS):
            part = torch.from_numpy(rows[start : start + ROWS_PER_PASS].astype(np.int64)).to(device)
            found[start : start + ROWS_PER_PASS] = token_losses(model(part), part).cpu().numpy()
    return found


def row_states(model: Decoder, rows: NDArray[np.unsignedinteger]) -> NDArray[np.float32]:
    """Return the mean over the tokens of each row's last hidden states, `(rows, width)`."""
    found = np.empty((len(rows), model.shape.width), np.float32)
    states: list[torch.Tensor] = []
    hook = model.norm.register_forward_hook(lambda module, given, result: states.append(result))
    try:
        with torch.inference_mode():
            for start in range(0, len(rows), ROWS_PER_PASS):
                part = torch.from_numpy(rows[start : start + ROWS_PER_PASS].astype(np.int64))
                model(part.to(model.embedding.weight.device))
                found[start : start + ROWS_PER_PASS] = states.pop().float().mean(dim=1).cpu().numpy()
    finally:
        hook.remove()
    return found


def row_sketches(model: Decoder, rows: NDArray[np.unsignedinteger], width: int) -> NDArray[np.float32]:
    """Return a random projection of the gradient of each row's mean loss, `(rows, width)`.

    Each of the gradient's numbers is added to one place with a random sign (count sketch: Charikar, Chen and
    Farach-Colton, 2002): inner products are kept in expectation, and nothing of size weights x width is held.
    Places and signs depend on the weights' number alone.
    """
    device = model.embedding.weight.device
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    count = sum(weight.numel() for weight in weights.values())
    draws = torch.Generator().manual_seed(count)
    places = torch.randint(width, (count,), generator=draws).to(device)
    signs = (2 * torch.randint(2, (count,), generator=draws) - 1).to(device)

    def loss(values: dict[str, torch.Tensor], row: torch.Tensor) -> torch.Tensor:
        logits = torch.func.functional_call(model, values, (row[None],))
        return token_losses(logits, row[None])[0]

    slopes = torch.func.grad(loss)
    found = np.zeros((len(rows), width), np.float32)
    for number, row in enumerate(rows):
        given = torch.from_numpy(row.astype(np.int64)).to(device)
        flat = torch.cat([each.reshape(-1) for each in slopes(weights, given).values()])
        sketch = torch.zeros(width, device=device).index_add_(0, places, flat * signs)
        found[number] = sketch.cpu().numpy()
    return found
