"""Deltas as they are stored in an additive patch, and back to fp32: bf16 words, or int8 in blocks.

int8: the entries are cut into blocks of 256; with m the largest magnitude of a block,
q = round(fp32(fp32(value / m) · 127)), ties to even, and the value read back is
fp32(fp32(q) · fp32(m / 127)). Every operation is one fp32 operation of NumPy, rounded on its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import BY_NAME, INT8_BLOCK
from patchc.jit import loop
from patchc.kernels.rounding.cpu import from_fp32
from patchc.kernels.tiles import convert

_LEVELS = np.float32(127)
_BF16 = BY_NAME["BF16"].code

Deltas = NDArray[np.float32]


@loop
def to_bf16(deltas: Deltas, words: NDArray[np.uint16]) -> int:
    """Round each delta to the nearest bf16 word, ties to even.

    Returns:
        The position of the first delta that is not finite or overflows bf16, or −1.
    """
    for i in range(deltas.size):
        word = from_fp32(deltas[i], _BF16)
        if word < 0:
            return i
        words[i] = word
    return -1


def from_bf16(words: NDArray[np.integer], deltas: Deltas) -> None:
    """Write the fp32 value of each bf16 word into ``deltas``; exact."""
    convert(words, _BF16, deltas)


def first_not_finite(deltas: Deltas) -> int:
    """The position of the first delta that is not finite, or −1."""
    faults = np.flatnonzero(~np.isfinite(deltas))
    return int(faults[0]) if len(faults) else -1


def to_int8(deltas: Deltas) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """The numbers q and each block's largest magnitude; deltas are finite and no block is all 0."""
    absmax = np.maximum.reduceat(np.abs(deltas), np.arange(0, len(deltas), INT8_BLOCK))
    relative = deltas / np.repeat(absmax, INT8_BLOCK)[: len(deltas)]
    return np.rint(relative * _LEVELS).astype(np.int8), absmax


def from_int8(numbers: NDArray[np.integer], absmax: NDArray[np.float32]) -> Deltas:
    """Invert :func:`to_int8` as far as the rounding allows; may overflow to an infinity."""
    units = np.repeat(absmax / _LEVELS, INT8_BLOCK)[: len(numbers)]
    with np.errstate(over="ignore"):
        deltas: Deltas = numbers.astype(np.float32) * units
    return deltas
