"""The numbers of :mod:`patchc.kernels.normals`, in plain NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.kernels.philox.reference import draws


def normals(seed: int, stream: int, first: int, count: int) -> NDArray[np.float64]:
    """The numbers of flat indices first … first + count − 1."""
    begin, end = first & ~3, (first + count + 3) & ~3
    shares = (draws(seed, stream, begin, end - begin).astype(np.float64) + 0.5) / 2.0**32
    radius = np.sqrt(-2.0 * np.log(shares[0::2]))
    angle = 2.0 * np.pi * shares[1::2]
    found = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1).reshape(-1)
    return found[first - begin : first - begin + count]
