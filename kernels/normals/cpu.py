"""The numbers of :mod:`patchc.kernels.normals`, as compiled loops."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from patchc.jit import Integer, inlined, loop
from patchc.kernels.normals import COSINE, LN_2, LOGARITHM, ROOT_2, SINE, TURN
from patchc.kernels.philox.cpu import fill_draws

_ONE = np.float64(1.0).view(np.int64)
_FRACTION = np.int64((1 << 52) - 1)


@loop
def add_normals(
    seed: np.uint64,
    stream: np.uint64,
    first: int,
    scale: float,
    draws: NDArray[np.uint32],
    scratch: NDArray[np.float64],
    values: NDArray[np.float64],
) -> None:
    """Add ``scale`` times their numbers to the values of flat index ``first`` on.

    Args:
        seed, stream: 64 bits each.
        first: flat index of the first value, a multiple of 4.
        scale: what the numbers are multiplied by.
        draws: scratch, a multiple of 4 long.
        scratch: as long as ``draws``.
        values: changed in place.
    """
    pairs = draws.size >> 1
    radii, mantissas = scratch[:pairs], scratch[pairs : 2 * pairs]
    for start in range(0, values.size, draws.size):
        fill_draws(seed, stream, (first + start) >> 2, draws)
        _fill_radii(draws, mantissas, radii)
        count = min(draws.size, values.size - start)
        for i in range(count >> 1):
            across, along = _direction(draws[2 * i + 1])
            values[start + 2 * i] += scale * (radii[i] * across)
            values[start + 2 * i + 1] += scale * (radii[i] * along)
        if count & 1:
            last = count >> 1
            across, _ = _direction(draws[2 * last + 1])
            values[start + count - 1] += scale * (radii[last] * across)


@loop
def sum_of_squares(values: NDArray[np.float64]) -> float:
    """Sum the squares of values in their order, in float64."""
    total = 0.0
    for value in values:
        total += value * value
    return total


@loop
def _fill_radii(
    draws: NDArray[np.uint32], mantissas: NDArray[np.float64], radii: NDArray[np.float64]
) -> None:
    """Fill ``radii`` with √(−2 ln v) of every other draw; ``mantissas`` is scratch."""
    for i in range(radii.size):
        mantissas[i] = np.float64(2 * np.int64(draws[2 * i]) + 1)
    bits = mantissas.view(np.int64)
    for i in range(radii.size):
        radii[i] = np.float64((bits[i] >> 52) - 1023 - 33)
        bits[i] = (bits[i] & _FRACTION) | _ONE
    for i in range(radii.size):
        is_large = mantissas[i] > ROOT_2
        mantissa = 0.5 * mantissas[i] if is_large else mantissas[i]
        exponent = radii[i] + (1.0 if is_large else 0.0)
        share = (mantissa - 1.0) / (mantissa + 1.0)
        square = share * share
        found = LOGARITHM[0]
        for power in range(1, len(LOGARITHM)):
            found = found * square + LOGARITHM[power]
        radii[i] = math.sqrt(-2.0 * (exponent * LN_2 + share * found))


@inlined
def _direction(draw: Integer) -> tuple[float, float]:
    """Cosine and sine of 2πv."""
    odd = 2 * np.int64(draw) + 1
    quarters = (odd + (1 << 30)) >> 31
    angle = np.float64(odd - (quarters << 31)) * TURN
    square = angle * angle
    sine, cosine = SINE[0], COSINE[0]
    for power in range(1, len(SINE)):
        sine = sine * square + SINE[power]
    for power in range(1, len(COSINE)):
        cosine = cosine * square + COSINE[power]
    sine *= angle
    is_swapped = (quarters & 1) == 1
    across = sine if is_swapped else cosine
    along = cosine if is_swapped else sine
    return (
        -across if (quarters + 1) & 2 else across,
        -along if quarters & 2 else along,
    )
