"""What a driver knows of the Ray job that it runs in."""

import json
import os

# keys of a job's metadata: the run directory, and the address at which it was submitted
DIRECTORY, ADDRESS = "shoal_directory", "shoal_address"


def running_in() -> dict[str, str]:
    """Return the metadata of the job that this process is the driver of; empty outside a job."""
    given = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return dict(given.get("metadata", {}))
