"""What torchvision needs to be imported where torch is built for CPUs and it for GPUs."""

import functools
import subprocess
import sys

import torch

OPERATORS = ("nms", "qnms")
# lives as long as the process: its operators go with it
DECLARED: list[torch.library.Library] = []


@functools.cache
def import_vision() -> None:
    """Import torchvision. One for another torch lacks operators: they are declared, and nothing calls them."""
    fits = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, check=False)
    if fits.returncode:
        DECLARED.append(torch.library.Library("torchvision", "FRAGMENT"))
        for name in OPERATORS:
            DECLARED[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401
