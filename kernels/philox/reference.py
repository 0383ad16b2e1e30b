"""The draws of :mod:`patchc.kernels.philox`, in plain NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def draws(seed: int, stream: int, first: int, count: int) -> NDArray[np.uint32]:
    """The draws of flat indices first … first + count − 1."""
    index = np.arange(first, first + count, dtype=np.uint64)
    block = index >> np.uint64(2)
    c = [block & _LOW, block >> _HALF]
    c += [np.full(count, stream & 0xFFFFFFFF, np.uint64), np.full(count, stream >> 32, np.uint64)]
    keys = np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)
    for _ in range(10):
        low, high = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [
            (high >> _HALF) ^ c[1] ^ keys[0],
            high & _LOW,
            (low >> _HALF) ^ c[3] ^ keys[1],
            low & _LOW,
        ]
        keys = (keys[0] + np.uint64(0x9E3779B9)) & _LOW, (keys[1] + np.uint64(0xBB67AE85)) & _LOW
    lanes = np.stack(c).astype(np.uint32)
    found: NDArray[np.uint32] = lanes[index & np.uint64(3), np.arange(count)]
    return found
