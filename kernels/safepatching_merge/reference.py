"""Scaled addition of masked deltas, and the steps that it takes from the base.

The merged value is fp32(fp32(base + α · P_SE) + β · P_OSM), each product and sum rounded to fp32 in
that order, P = fp32(tuned) − fp32(base), then rounded once to the base's dtype. A component that
does not select an entry adds nothing to it. No contraction into fused multiply-adds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.jit import compiled
from patchc.kernels.rounding.cpu import from_fp32, to_fp32


@compiled
def add_scaled_delta(
    base: Words,
    base_code: int,
    tuned: Words,
    tuned_code: int,
    mask: NDArray[np.bool_],
    scale: np.float32,
    merged: NDArray[np.float32],
) -> int:
    """Add ``scale`` · (tuned − base) to ``merged`` where ``mask`` is set, in fp32.

    Returns:
        The first masked position whose base or tuned value is not finite, or −1.
    """
    for i in range(base.size):
        if mask[i]:
            origin = to_fp32(base[i], base_code)
            target = to_fp32(tuned[i], tuned_code)
            if not (np.isfinite(origin) and np.isfinite(target)):
                return i
            delta = np.float32(target - origin)
            product = np.float32(scale * delta)
            merged[i] = np.float32(merged[i] + product)
    return -1


@compiled
def load_fp32(words: Words, code: int, mask: NDArray[np.bool_], out: NDArray[np.float32]) -> None:
    """Convert the masked words to fp32; other entries of ``out`` stay as they are."""
    for i in range(words.size):
        if mask[i]:
            out[i] = to_fp32(words[i], code)


@compiled
def round_masked(
    base: Words,
    base_code: int,
    mask: NDArray[np.bool_],
    merged: NDArray[np.float32],
    result: Words,
) -> int:
    """Write ``merged``, rounded to the base's dtype, where ``mask`` is set, and ``base`` elsewhere.

    Returns:
        The first masked position whose value is not finite or overflows the dtype, or −1.
    """
    for i in range(base.size):
        result[i] = base[i]
        if mask[i]:
            word = from_fp32(merged[i], base_code)
            if word < 0:
                return i
            result[i] = word
    return -1


@compiled
def add_scaled_entries(
    positions: NDArray[np.uint32],
    deltas: NDArray[np.float32],
    scale: np.float32,
    merged: NDArray[np.float32],
) -> None:
    """Add ``scale`` · delta to ``merged`` at each position, in fp32; the caller checks the sums.

    Positions are inside ``merged`` and distinct. A value that is not finite stays so.
    """
    for i in range(positions.size):
        product = np.float32(scale * deltas[i])
        merged[positions[i]] = np.float32(merged[positions[i]] + product)
