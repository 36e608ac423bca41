"""Where a worker begins. Ray's processes on the way to it import this too, and must not wait for torch."""

import traceback
from typing import Any

from shoal.cluster import mailbox
from shoal.cluster.lease import LeaseLost
from shoal.cluster.storage import BrokenFile, CannotWrite
from shoal.search.errors import Exhausted, InputError
from shoal.search.messages import Message

# these say in one line all that there is to say
SAID = (BrokenFile, CannotWrite, Exhausted, InputError, LeaseLost)


def train_brood(settings: dict[str, Any]) -> None:
    """Host this worker's members for the whole run; no exploit starts or stops a process.

    What is raised here concerns the run and not one member: it is reported and ends the run. A worker
    that dies instead is started again with its brood, which goes on from its own last checkpoint.
    """
    actor, brood = settings["mailbox"], settings["brood"]
    try:
        from shoal.search.worker.brood import host_members

        host_members(settings["work"], actor, brood)
    except Exception as error:
        failed = str(error) if isinstance(error, SAID) else traceback.format_exc()
        mailbox.send_report(actor, brood, Message(failed=failed))
