"""One teacher for all members that see the same rows: it is asked once for each batch."""

import hashlib
from collections import OrderedDict

import torch
from torch import Tensor

from trainables.distill.teachers import Teacher

Three = tuple[Tensor, Tensor, Tensor]


class SharedTeacher:
    """Keeps what a teacher showed: of the last batches up to so many megabytes, of held-out rows for good.

    Members of a brood train an interval each in turn on the same batches, so an interval's batches should
    fit; what does not is computed again, with the same result.
    """

    def __init__(self, teacher: Teacher, megabytes: float = 512.0):
        self.teacher, self.limit = teacher, megabytes * 2**20
        self.batches: OrderedDict[bytes, Three] = OrderedDict()
        self.held_out: dict[bytes, Three] = {}
        self.size = 0.0
        self.asked = self.computed = 0

    def see(self, tokens: Tensor, mask: Tensor | None = None, held_out: bool = False) -> Three:
        """Return the teacher's queries, keys and values of these rows."""
        self.asked += 1
        key = fingerprint(tokens, mask)
        known = self.held_out.get(key) or self.batches.get(key)
        if known is not None:
            return known
        self.computed += 1
        shown = self.teacher.see(tokens, mask)
        if held_out:
            self.held_out[key] = shown
            return shown
        self.batches[key] = shown
        self.size += sum(x.nbytes for x in shown)
        while self.size > self.limit:
            _, oldest = self.batches.popitem(last=False)
            self.size -= sum(x.nbytes for x in oldest)
        return shown


def fingerprint(tokens: Tensor, mask: Tensor | None) -> bytes:
    found = hashlib.blake2b(tokens.cpu().numpy().tobytes(), digest_size=16)
    if mask is not None:
        found.update(mask.to(torch.uint8).cpu().numpy().tobytes())
    return found.digest()
