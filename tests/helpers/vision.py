"""What torchvision needs to be imported where torch is built for CPUs and it for GPUs."""

import functools
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

OPERATORS = ("nms", "qnms")
# lives as long as the process: its operators go with it
DECLARED: list[torch.library.Library] = []


@functools.cache
def import_timm() -> None:
    """Import timm, or skip the test without it.

    A torchvision for another torch lacks operators: they are declared, and nothing calls them.
    """
    if find_spec("timm") is None:
        pytest.skip("timm is not installed: pip install 'shoal[vision]'")
    fits = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, check=False)
    if fits.returncode:
        DECLARED.append(torch.library.Library("torchvision", "FRAGMENT"))
        for name in OPERATORS:
            DECLARED[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import timm  # noqa: F401
