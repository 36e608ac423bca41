"""Random numbers that belong to a row and not to the order of calls."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from shoal.policies.sampling.interface import Ids

LEAST, MOST = 2.0**-65, 1 - 2.0**-53  # so that logarithms of u and of 1 - u are finite


def keys(seed: int, purpose: str, epoch: int, ids: Ids) -> NDArray[np.uint64]:
    """Return a key for each id, uniform over 64 bits; different ids have different keys."""
    digest = hashlib.blake2b(f"{seed}|{purpose}|{epoch}".encode(), digest_size=16).digest()
    first, second = np.frombuffer(digest, np.uint64)
    return mixed_bits(mixed_bits(ids.astype(np.uint64) ^ first) + second)


def uniform(seed: int, purpose: str, epoch: int, ids: Ids) -> NDArray[np.float64]:
    """Return u in (0, 1) for each id."""
    u = (keys(seed, purpose, epoch, ids) >> np.uint64(11)) * 2.0**-53
    return np.clip(u, LEAST, MOST)


def mixed_bits(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64 bits one to one (the finaliser of splitmix64: Steele, Lea and Flood, 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
