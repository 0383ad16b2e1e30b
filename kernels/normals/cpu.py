"""The numbers of :mod:`patchc.kernels.normals`, as compiled loops."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from patchc.jit import loop
from patchc.kernels.philox.cpu import fill_draws

_SHARE = 2.0**-32
_TURN = 2.0 * math.pi


@loop
def add_normals(
    seed: np.uint64,
    stream: np.uint64,
    first: int,
    scale: float,
    draws: NDArray[np.uint32],
    values: NDArray[np.float64],
) -> None:
    """Add ``scale`` times their numbers to the values of flat index ``first`` on.

    Args:
        seed, stream: 64 bits each.
        first: flat index of the first value, a multiple of 4.
        scale: what the numbers are multiplied by.
        draws: scratch, a multiple of 4 long.
        values: changed in place.
    """
    for start in range(0, values.size, draws.size):
        fill_draws(seed, stream, (first + start) >> 2, draws)
        for i in range(start, min(start + draws.size, values.size), 2):
            radius = math.sqrt(-2.0 * math.log((draws[i - start] + 0.5) * _SHARE))
            angle = _TURN * ((draws[i - start + 1] + 0.5) * _SHARE)
            values[i] += scale * (radius * math.cos(angle))
            if i + 1 < values.size:
                values[i + 1] += scale * (radius * math.sin(angle))


@loop
def sum_of_squares(values: NDArray[np.float64]) -> float:
    """Sum the squares of values in their order, in float64."""
    total = 0.0
    for value in values:
        total += value * value
    return total
