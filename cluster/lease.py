"""One driver writes a run directory at a time: a retry takes the run over, and what it replaced finds out.

KubeRay may start a second attempt while the first one still runs, and a head that comes back may find its
old driver alive. The newest driver owns the directory; an older one fails at its next write. The check
and the write are two operations, so a write already under way may still land; where decisions are
synchronous, it is what the newer driver would write.
"""

import uuid

from cluster.storage import Store

LEASE = "lease.json"


class LeaseLost(RuntimeError):
    """Another driver has taken the run directory over."""


class LeasedStore(Store):
    """A run directory whose every change needs the lease."""

    def __init__(self, uri: str, owner: str):
        super().__init__(uri)
        self.owner = owner

    def held(self) -> bool:
        return bool(self.read_json(LEASE)["owner"] == self.owner)

    def check(self) -> None:
        if not self.held():
            epoch = self.read_json(LEASE)["epoch"]
            raise LeaseLost(f"{self.uri} was taken over by another driver (lease {epoch}); this one stops.")

    def write(self, name: str, content: bytes | str) -> None:
        self.check()
        super().write(name, content)

    def delete(self, name: str) -> None:
        self.check()
        super().delete(name)


def take(uri: str) -> LeasedStore:
    """Take the lease of a run directory, from whoever has it."""
    plain, owner = Store(uri), uuid.uuid4().hex
    epoch = plain.read_json(LEASE)["epoch"] + 1 if plain.exists(LEASE) else 1
    plain.write_json(LEASE, {"epoch": epoch, "owner": owner})
    return LeasedStore(uri, owner)
