import atexit
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

EXIT_STATUS = pytest.StashKey[int]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with whole runs, which take longest: two processes then end at about the same time."""
    items.sort(key=lambda item: "whole" not in item.path.parts)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[EXIT_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End the process as soon as all is told and what Python registered for its end has run.

    One process has loaded Ray, torch, pyarrow, gRPC, LightGBM and more, whose native threads still run. Once,
    after all tests had passed, the destructors of these libraries ended the process with a segmentation fault.
    """
    if os.path.basename(sys.argv[0]) not in ("pytest", "__main__.py") or EXIT_STATUS not in config.stash:
        return
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(config.stash[EXIT_STATUS])


@pytest.fixture(autouse=True)
def no_run_is_left() -> Iterator[None]:
    yield
    if "tests.helpers.runs" in sys.modules:  # its imports take seconds, and few tests need them
        sys.modules["tests.helpers.runs"].end_started()


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    from tests.helpers.runs import write_texts

    return write_texts(tmp_path_factory.mktemp("texts"))
