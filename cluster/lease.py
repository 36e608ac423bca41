"""One driver writes a run directory at a time: a retry takes the run over, and what it replaced finds out.

KubeRay may start a second attempt while the first one still runs, and a head that comes back may find its
old driver alive. The newest driver owns the directory; an older one fails at its next write. The check
and the write are two operations, so a write already under way may still land; where decisions are
synchronous, it is what the newer driver would write.
"""

import uuid
from typing import Any

from cluster.storage import Gone, MadeStore, Store

LEASE = "lease.json"


class LeaseLost(Gone):
    """Another driver has taken the run directory over."""


class LeasedStore(MadeStore):
    """A run directory whose every change needs the lease."""

    def __init__(self, uri: str, owner: str):
        super().__init__(uri)
        self.owner = owner

    def held(self) -> bool:
        return self.lease().get("owner") == self.owner

    def lease(self) -> dict[str, Any]:
        """Return whose the directory is; nothing if it was deleted."""
        try:
            found: dict[str, Any] = self.read_json(LEASE, "owner", "epoch")
        except FileNotFoundError:
            return {}
        return found

    def check(self) -> None:
        lease = self.lease()
        if not lease:
            raise Gone(f"{self.uri} was deleted while its run went on; the run ends.")
        if lease["owner"] != self.owner:
            raise LeaseLost(
                f"{self.uri} was taken over by another driver (lease {lease['epoch']}); this one stops."
            )

    def write(self, name: str, content: bytes | str) -> None:
        self.check()
        super().write(name, content)

    def delete(self, name: str) -> None:
        self.check()
        super().delete(name)


def take(uri: str) -> LeasedStore:
    """Take the lease of a run directory, from whoever has it."""
    plain, owner = Store(uri), uuid.uuid4().hex
    epoch = plain.read_json(LEASE, "owner", "epoch")["epoch"] + 1 if plain.exists(LEASE) else 1
    plain.write_json(LEASE, {"epoch": epoch, "owner": owner})
    return LeasedStore(uri, owner)
