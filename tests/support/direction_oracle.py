"""Random directions by NumPy: another Philox, NumPy's own logarithm, cosine and sine."""

from __future__ import annotations

import numpy as np
import selection_oracle
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def normals(seed: int, direction: str, tensor: str, count: int) -> Numbers:
    """Standard normal numbers by Box and Muller's method, of a tensor's flat indices."""
    stream = selection_oracle.stream_of(f"direction {direction}", tensor)
    blocks = np.arange((count + 3) // 4, dtype=np.uint64)
    draws = selection_oracle.philox_blocks(blocks, stream, seed).ravel()
    v = (draws.astype(np.float64) + 0.5) / 2.0**32
    radius, angle = np.sqrt(-2 * np.log(v[0::2])), 2 * np.pi * v[1::2]
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1).ravel()[:count]


def direction_of(seed: int, direction: str, tensor: str, base: Numbers) -> Numbers:
    """The direction d in a tensor: as long as the base's values, and 0 in norms."""
    if "norm" in tensor.lower():
        return np.zeros(base.shape)
    numbers = normals(seed, direction, tensor, base.size).reshape(base.shape)
    return numbers / np.linalg.norm(numbers) * np.linalg.norm(base)
