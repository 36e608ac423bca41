import subprocess
import sys

import pytest

HOLES = """
from pathlib import Path
import torch
{call}
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
torch.ones(7_000_000).sum()  # glibc raises its own limit when this is freed
before = resident()
large, small = [], []
for _ in range(20):
    large.append(torch.ones(2_000_000))
    small.append(torch.ones(20_000))
held = resident() - before
large.clear()
print(held, resident() - before)
"""
GIVE_BACK = "from shoal.trainables.given_back import give_back_large; give_back_large()"


def held_and_left(call: str) -> tuple[int, int]:
    """Return the bytes that twenty blocks of 8 MB with small ones between took, and those left after them."""
    said = subprocess.check_output([sys.executable, "-c", HOLES.format(call=call)], text=True)
    held, left = map(int, said.split())
    return held, left


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_freed_blocks_between_small_ones_go_back_to_the_machine():
    held, left = held_and_left(GIVE_BACK)
    assert held >= 20 * 8_000_000
    assert left < 10_000_000
    assert held_and_left("")[1] > 10 * 8_000_000  # else this test shows nothing
