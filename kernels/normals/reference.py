"""The numbers of :mod:`patchc.kernels.normals`, in plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from patchc.kernels.normals import COSINE, LN_2, LOGARITHM, ROOT_2, SINE, TURN
from patchc.kernels.philox.reference import draws

Numbers = NDArray[np.float64]


def normals(seed: int, stream: int, first: int, count: int) -> Numbers:
    """The numbers of flat indices first … first + count − 1."""
    begin, end = first & ~3, (first + count + 3) & ~3
    odd = 2 * draws(seed, stream, begin, end - begin).astype(np.int64) + 1
    radius = np.sqrt(-2.0 * _logarithm(odd[0::2]))
    quarters = (odd[1::2] + (1 << 30)) >> 31
    angle = (odd[1::2] - (quarters << 31)).astype(np.float64) * TURN
    sine = angle * _polynomial(SINE, angle * angle)
    cosine = _polynomial(COSINE, angle * angle)
    swapped = (quarters & 1) == 1
    across = np.where(swapped, sine, cosine) * np.where((quarters + 1) & 2, -1.0, 1.0)
    along = np.where(swapped, cosine, sine) * np.where(quarters & 2, -1.0, 1.0)
    found = np.stack((radius * across, radius * along), axis=1).reshape(-1)
    return found[first - begin : first - begin + count]


def _logarithm(values: NDArray[np.int64]) -> Numbers:
    """ln of values / 2³³."""
    mantissas, exponents = np.frexp(values.astype(np.float64))
    mantissas, exponents = 2.0 * mantissas, exponents - 1
    large = mantissas > ROOT_2
    mantissas = np.where(large, 0.5 * mantissas, mantissas)
    share = (mantissas - 1.0) / (mantissas + 1.0)
    return (exponents - 33 + large) * LN_2 + share * _polynomial(LOGARITHM, share * share)


def _polynomial(coefficients: Sequence[float], values: Numbers) -> Numbers:
    found = np.full_like(values, coefficients[0])
    for one in coefficients[1:]:
        found = found * values + one
    return found
