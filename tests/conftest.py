import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# ray.init() turns token authentication on in 2.60: a test run must not depend on this machine's token
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.pop("RAY_ADDRESS", None)

# a slow moment of the machine is no failure
settings.register_profile("shoal", deadline=None)
settings.load_profile("shoal")


@pytest.fixture(autouse=True)
def no_run_is_left() -> Iterator[None]:
    yield
    if "tests.helpers.runs" in sys.modules:  # its imports take seconds, and few tests need them
        sys.modules["tests.helpers.runs"].end_started()


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    from tests.helpers.runs import write_texts

    return write_texts(tmp_path_factory.mktemp("texts"))
