"""One teacher for all members that train on the same rows: it computes each batch only once."""

import hashlib
from collections import OrderedDict

import torch
from torch import Tensor

from shoal.trainables.distill.staged import Staged
from shoal.trainables.distill.teachers import Ensemble, Shown, Teacher


class SharedTeacher:
    """Keeps a teacher's outputs: those of the last batches within `megabytes`, those of held-out rows for good.

    Members of a brood train one after another for an interval, on the same batches, so an interval's batches
    should fit. Batches that do not fit are computed again, with the same result.
    """

    def __init__(
        self,
        teacher: Teacher | Ensemble,
        megabytes: float = 512.0,
        hidden: bool = False,  # whether the teacher's stream is needed too
        logits: bool = False,
        staged: Staged | None = None,  # outputs computed before the training
    ):
        self.teacher, self.limit = teacher, megabytes * 2**20
        self.hidden, self.logits, self.staged = hidden, logits, staged
        self.batches: OrderedDict[bytes, Shown] = OrderedDict()
        self.held_out: dict[bytes, Shown] = {}
        self.size = 0.0
        self.asked = self.computed = 0

    def see(self, tokens: Tensor, mask: Tensor | None = None, held_out: bool = False) -> Shown:
        """Return the teacher's outputs for these rows, which are computed only if they are not kept."""
        self.asked += 1
        key = fingerprint(tokens, mask)
        known = self.held_out.get(key) or self.batches.get(key)
        if known is not None:
            return known
        shown = self.look(tokens, mask)
        if held_out:
            self.held_out[key] = shown
            return shown
        self.batches[key] = shown
        self.size += sum(x.nbytes for x in shown.tensors)
        while self.size > self.limit:
            _, oldest = self.batches.popitem(last=False)
            self.size -= sum(x.nbytes for x in oldest.tensors)
        return shown

    def look(self, tokens: Tensor, mask: Tensor | None) -> Shown:
        """Return the outputs that were computed before the training, or compute them."""
        before = self.staged.find(tokens) if self.staged and mask is None else None
        if before is not None:
            return before
        self.computed += 1
        return self.teacher.show(tokens, mask, self.hidden, self.logits)


def fingerprint(tokens: Tensor, mask: Tensor | None) -> bytes:
    found = hashlib.blake2b(tokens.cpu().numpy().tobytes(), digest_size=16)
    if mask is not None:
        found.update(mask.to(torch.uint8).cpu().numpy().tobytes())
    return found.digest()
