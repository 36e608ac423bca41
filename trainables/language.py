"""A language model as a member: the decoder and its losses."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from shoal.trainables.answering import until_end
from shoal.trainables.decoder import Decoder, initialise, losses_by_token
from shoal.trainables.experts import temperature_at
from shoal.trainables.forgetting import FORGET, extraction, likeliest_right
from shoal.trainables.hiding import hides, with_hidden
from shoal.trainables.network import Network
from shoal.trainables.objectives.inverted_hinge import hinge
from shoal.trainables.objectives.weighted import Weighted
from shoal.trainables.pretrained.rows import mean_counted
from shoal.trainables.scores import TokenIds
from shoal.trainables.searched_numbers import FloatOrTensor, cross_entropy, squared_log_partition, used
from shoal.trainables.settings import TEMPERATURES, Cooling, DecoderShape

COOLS = frozenset(Cooling.__dataclass_fields__)  # numbers of a gate


class LanguageModel(Network):
    """A decoder that trains on rows of tokens, or of instructions.

    A row's loss is the mean over its tokens, of instructions over those of answers, in nats. Some rows may be
    forgotten (`objectives.forget`); or a share of the tokens is hidden, and found from both sides
    (`objectives.masked`).

    With experts a gate cools over the run, and a row that uses them unevenly loses more. Rows are judged at the
    gate's last temperature, which is kept among the weights.
    """

    takes = frozenset({"tokens", "instruction"})
    by_row = True
    writes = True
    shape: DecoderShape
    losses: Weighted | None = None  # None: the next token's loss alone
    gate_start: float = Cooling.gate_start
    gate_end: float = Cooling.gate_end
    gate_balance: float = Cooling.gate_balance
    searched: ClassVar[Set[str]] = COOLS

    def build(self) -> nn.Module:
        model = Decoder(self.shape)
        initialise(model, self.generator)
        return model

    def own_numbers(self, chosen: Mapping[str, Any]) -> dict[str, float]:
        own = super().own_numbers(chosen)
        cooling = {name: own.pop(name) for name in COOLS}
        if self.gated:
            own |= asdict(Cooling(**cooling))  # which checks them
        elif named := sorted(COOLS & chosen.keys()):
            raise ValueError(f"{named[0]} is of a gate between experts, but there is one expert.")
        return own if self.losses is None else own | self.losses.numbers(chosen.get("objective", {}))

    @property
    def gated(self) -> bool:
        """Whether it has several experts."""
        return self.shape.experts > 1

    def begin_step(self, trained: int) -> None:
        if not self.gated:
            return
        end = self.numbers["gate_end"]
        now = temperature_at(trained, self.recipe.steps, self.numbers["gate_start"], end)
        held: Tensor = getattr(self.module, TEMPERATURES)
        held.copy_(torch.tensor([now, end]))

    @property
    def hides(self) -> bool:
        """Whether hidden tokens are found from both sides, and not the next one from those before it."""
        return hides(self.losses)

    def loss(self, module: nn.Module, batch: Any, numbers: Mapping[str, FloatOrTensor]) -> Tensor:
        if self.hides:
            return self.hidden_loss(module, batch, numbers)
        logits, uneven = self.trained_pass(module, numbers, *seen_in(batch))
        return self.losses_of(logits, batch, numbers) + uneven

    def trained_pass(
        self, module: nn.Module, numbers: Mapping[str, FloatOrTensor], tokens: Tensor, *seen: Tensor | None
    ) -> tuple[Tensor, FloatOrTensor]:
        """Return logits, and what each row loses for its use of experts, `(rows,)`: 0 without, or judged."""
        if not (self.gated and module.training):
            return module(tokens, numbers["dropout"], *seen), 0.0
        logits, uneven = module(tokens, numbers["dropout"], *seen, cooling=True)
        return logits, numbers["gate_balance"] * uneven

    def losses_of(self, logits: Tensor, batch: Any, numbers: Mapping[str, FloatOrTensor]) -> Tensor:
        """Return each row's training loss, `(rows,)`: that of rows to forget is another one."""
        nats = self.next_token_loss(logits, batch, numbers)
        if self.losses is None or not is_marked(batch):
            return nats
        hinges, counts = hinge(logits[:, :-1], tokens_in(batch)[:, 1:]), answer_places(batch)
        each = hinges.mean(dim=1) if counts is None else mean_counted(hinges, counts)
        out = {"nats": nats, "hinge": each}
        return self.losses.loss(out, {FORGET: batch[FORGET]}, numbers, {})[0]

    def hidden_loss(
        self, module: nn.Module, batch: Any, numbers: Mapping[str, FloatOrTensor], full: bool = False
    ) -> Tensor:
        """Return each row's loss, the mean over its hidden tokens in nats, `(rows,)`.

        With `full` it is that of each token `(rows, length)`, and NaN where none is hidden. Rows that are
        judged hide the same tokens each time.
        """
        assert self.losses is not None
        rows = with_hidden(batch, self.shape.vocabulary, module.training, numbers)
        tokens, found = rows.tokens, rows.found
        logits, uneven = self.trained_pass(module, numbers, rows.read, rows.segment, rows.blank)
        flat = cross_entropy(logits.flatten(0, 1).float(), tokens.flatten(), numbers["label_smoothing"])
        losses, z_loss = flat.view(tokens.shape), numbers["z_loss"]
        if used(z_loss):
            losses = losses + z_loss * logits.float().logsumexp(dim=-1).square()
        if full:
            return losses.masked_fill(~found, float("nan"))
        of_rows = mean_counted(losses, found.float())
        return self.losses.loss({"hidden_nats": of_rows}, {}, numbers, {})[0] + uneven

    def measure(self, split: str = "validation") -> dict[str, float]:
        return super().measure(split) | extraction(self, self.extracted)

    def extracted(self, module: nn.Module, batch: Any) -> Tensor:
        """Return the share of each row's tokens that count which the model finds likeliest, `(rows,)`."""
        logits = decoder_logits(module, batch)[:, :-1]
        return likeliest_right(logits, tokens_in(batch)[:, 1:], answer_places(batch))

    def next_token_loss(self, logits: Tensor, batch: Any, numbers: Mapping[str, FloatOrTensor]) -> Tensor:
        """Return each row's loss `(rows,)`, in nats: its mean token loss, and the z-loss if used."""
        losses = losses_by_token(logits, tokens_in(batch), numbers["label_smoothing"])
        counts, z_loss = answer_places(batch), numbers["z_loss"]
        if counts is not None:
            squares = logits[:, :-1].float().logsumexp(dim=-1).square() if used(z_loss) else 0.0
            return mean_counted(losses + z_loss * squares, counts)
        loss = losses.mean(dim=1)
        return loss + z_loss * squared_log_partition(logits[:, :-1]) if used(z_loss) else loss

    def parts(self, module: nn.Module, batch: Any) -> Tensor:
        """Return the loss of each token except the first of a row, in nats: `(rows, length - 1)`.

        It is NaN where a token does not count. Of hidden tokens it is that of each token, `(rows, length)`.
        """
        if self.hides:
            return self.hidden_loss(module, batch, self.sober, full=True)
        return self.parts_of(decoder_logits(module, batch), batch)

    def parts_of(self, logits: Tensor, batch: Any) -> Tensor:
        losses, counts = losses_by_token(logits, tokens_in(batch)), answer_places(batch)
        return losses if counts is None else losses.masked_fill(counts == 0, float("nan"))

    def losses_and_parts(
        self, module: nn.Module, batch: Any, numbers: Mapping[str, FloatOrTensor]
    ) -> tuple[Tensor, Tensor]:
        logits, uneven = self.trained_pass(module, numbers, *seen_in(batch))
        with torch.no_grad():  # without dropout and a gate that cools one pass serves both
            sober = decoder_logits(module, batch) if numbers["dropout"] or self.gated else logits
            parts = self.parts_of(sober, batch)
        return self.losses_of(logits, batch, numbers) + uneven, parts

    def write(
        self, module: nn.Module, prompts: Sequence[TokenIds], most: int, ends: Set[int]
    ) -> list[list[int]]:
        """Return the likeliest next tokens of each prompt, within the rows' length."""
        at = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        length = min(int(at.max()) + most, self.shape.sequence_length)
        tokens = torch.zeros(len(prompts), length, dtype=torch.long, device=self.device)
        for row, prompt in enumerate(prompts):  # no place looks at what stands behind a prompt
            tokens[row, : len(prompt)] = torch.from_numpy(prompt.astype("int64"))
        rows, begins, last = torch.arange(len(prompts), device=self.device), at.tolist(), sorted(ends)
        done = torch.zeros_like(at, dtype=torch.bool)
        for _ in range(most):
            done |= at >= length
            if bool(done.all()):
                break
            logits = module(tokens[:, : int(at.max())])
            following = logits[rows, at - 1].argmax(dim=-1)
            going = rows[~done]
            tokens[going, at[going]] = following[going]
            at[going] += 1
            done |= torch.isin(following, torch.tensor(last, device=self.device))
        found = zip(tokens.tolist(), begins, at.tolist(), strict=True)
        return [until_end(ids[begin:end], ends) for ids, begin, end in found]


def tokens_in(batch: Any) -> Tensor:
    """Return the tokens of a batch, `(rows, length)`: it is they, or has them as a field."""
    tokens: Tensor = batch["tokens"] if isinstance(batch, Mapping) else batch
    return tokens.long()


def is_marked(batch: Any) -> bool:
    """Say whether a batch says which of its rows are to be forgotten."""
    return isinstance(batch, Mapping) and FORGET in batch


def seen_in(batch: Any) -> tuple[Tensor, ...]:
    """Return the tokens of a batch, and the examples that they are of if it says so."""
    if not isinstance(batch, Mapping) or "segment" not in batch:
        return (tokens_in(batch),)
    return tokens_in(batch), batch["segment"].long()


def decoder_logits(module: nn.Module, batch: Any) -> Tensor:
    tokens, *segment = seen_in(batch)
    logits: Tensor = module(tokens, 0.0, *segment)
    return logits


def answer_places(batch: Any) -> Tensor | None:
    """Return 1.0 where the loss of a token after the first counts, `(rows, length - 1)`; None: all count."""
    if not isinstance(batch, Mapping) or "segment" not in batch:
        return None
    segment = batch["segment"].long()
    same = (segment[:, 1:] == segment[:, :-1]) & (segment[:, 1:] > 0)
    return (same & (batch["mask"][:, 1:] > 0)).float()
