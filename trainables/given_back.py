"""How the memory of large tensors comes back to the machine when they are freed, on a CPU."""

import ctypes
import os

LARGE = 4 << 20  # bytes from which a block of memory is mapped by itself
MMAP_THRESHOLD = -3  # glibc's number of that setting (mallopt(3))


def give_back_large() -> None:
    """Let the C library map each large block by itself, so that freeing it gives its memory back.

    By itself glibc keeps blocks of up to 32 MiB on its heap once it has seen such sizes freed, and the holes
    between them stay resident: a third of a worker with eight adapters. Huge pages make mapping cheap, where
    torch has not allocated before. What the user's environment says of either holds; a C library without
    `mallopt` is left alone.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        mallopt(MMAP_THRESHOLD, LARGE)
