"""What several tests of corpora start from."""

from collections.abc import Callable
from typing import Any

import pytest

from shoal.search.corpus import stages


@pytest.fixture
def here(monkeypatch) -> None:
    """Stages that run in this process, last batch first: order must come from the batches alone."""

    def apply(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return list(reversed([function(item) for item in reversed(items)]))

    monkeypatch.setattr(stages.build_group_on_ray, "__defaults__", (apply,))
