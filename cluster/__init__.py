"""Where members live: Ray plumbing that knows no algorithm and no network."""

import os

# Ray reads these when it is imported. A brood is a trial, a controller, a worker and readers, so more
# processes than CPUs start at once; Ray warns of that with nine lines of advice that do not apply.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "worker processes have been started on node")
