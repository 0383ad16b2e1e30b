"""The arithmetic of :mod:`patchc.kernels.task_merge`, step by step, in plain loops.

They are compiled because a fit uses them too, and a merge that has to name a value at fault.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.jit import loop
from patchc.kernels.rounding.cpu import from_fp32, to_fp32

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@loop
def subtract(base: Words, base_code: int, tuned: Words, tuned_code: int, delta: Floats) -> int:
    """Write tuned − base into ``delta``.

    Returns:
        The first position where either value or the difference is not finite, or −1.
    """
    fault = -1
    for i in range(base.size):
        delta[i] = np.float32(to_fp32(tuned[i], tuned_code) - to_fp32(base[i], base_code))
        if fault < 0 and not np.isfinite(delta[i]):
            fault = i
    return fault


@loop
def add_scaled(delta: Floats, mask: Mask, scale: np.float32, total: Floats) -> int:
    """Add ``scale`` · ``delta`` to ``total`` where ``mask`` is set.

    Returns:
        How many masked deltas are not zero.
    """
    count = 0
    for i in range(delta.size):
        if mask[i]:
            total[i] = np.float32(total[i] + np.float32(scale * delta[i]))
            count += delta[i] != 0
    return count


@loop
def add_votes(
    delta: Floats, mask: Mask, weight: np.float32, total: Floats, sums: Floats, weights: Floats
) -> int:
    """As :func:`add_scaled`; and add each term and its weight to the side of the term's sign.

    Args:
        delta, mask, weight, total: as in :func:`add_scaled`; ``weight`` is not negative.
        sums, weights: shape (2, entries): row 0 of the positive terms, row 1 of the negative.

    Returns:
        How many masked deltas are not zero.
    """
    count = 0
    for i in range(delta.size):
        if mask[i]:
            term = np.float32(weight * delta[i])
            count += delta[i] != 0
            if term != 0:
                side = 1 if term < 0 else 0
                total[i] = np.float32(total[i] + term)
                sums[side, i] = np.float32(sums[side, i] + term)
                weights[side, i] = np.float32(weights[side, i] + weight)
    return count


@loop
def count_signs(total: Floats) -> int:
    """How many more sums are positive than negative."""
    balance = 0
    for i in range(total.size):
        balance += (total[i] > 0) - (total[i] < 0)
    return balance


@loop
def average_elected(total: Floats, sums: Floats, weights: Floats, majority: int) -> int:
    """Replace each sum by the weighted mean of the terms that agree with its sign.

    Args:
        total: sums of all terms; overwritten.
        sums, weights: as :func:`add_votes` leaves them.
        majority: positive, zero or negative; stands in for the sign of a sum that is exactly zero.

    Returns:
        The first position whose sum is not finite, or −1.
    """
    for i in range(total.size):
        if not np.isfinite(total[i]):
            return i
        side = -1
        if total[i] > 0 or (total[i] == 0 and majority > 0):
            side = 0
        elif total[i] < 0 or majority < 0:
            side = 1
        if side >= 0 and weights[side, i] > 0:
            total[i] = np.float32(sums[side, i] / weights[side, i])
        else:
            total[i] = np.float32(0)
    return -1


@loop
def add_total(base: Words, base_code: int, total: Floats, scale: np.float32, result: Words) -> int:
    """Write base + ``scale`` · ``total``, rounded to the base's dtype, into ``result``.

    Where the product is zero the base's word stays as it is, so that −0 stays −0.

    Returns:
        The first position whose value is not finite or overflows the dtype, or −1.
    """
    for i in range(base.size):
        result[i] = base[i]
        product = np.float32(scale * total[i])
        if product != 0:
            word = from_fp32(np.float32(to_fp32(base[i], base_code) + product), base_code)
            if word < 0:
                return i
            result[i] = word
    return -1
