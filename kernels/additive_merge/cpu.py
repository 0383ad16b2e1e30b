"""Scaled deltas added in the host's memory; see :mod:`patchc.kernels.additive_merge`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.jit import loop
from patchc.kernels.rounding.cpu import load_fp32, round_masked

Positions = NDArray[np.uint32]
Floats = NDArray[np.float32]


def add_entries(
    words: Words,
    code: int,
    components: Sequence[tuple[Positions, Floats, float | np.float32]],
    mask: NDArray[np.bool_] | None = None,
    merged: Floats | None = None,
) -> int:
    """Add the components' scaled deltas to words, in place.

    Args:
        words: of the dtype ``code``.
        components: positions, inside ``words`` and distinct, deltas and scale of each.
        mask, merged: as long as the words, to compute in; made anew where they are not given.

    Returns:
        The first position whose value is not finite or overflows the dtype, or −1. Words from
        there on are as they were.
    """
    mask = np.empty(words.size, np.bool_) if mask is None else mask
    merged = np.empty(words.size, np.float32) if merged is None else merged
    mask[:] = False
    for positions, _, _ in components:
        mask[positions] = True
    load_fp32(words, code, mask, merged)
    for positions, deltas, scale in components:
        add_scaled_entries(positions, deltas, np.float32(scale), merged)
    return round_masked(words, code, mask, merged, words)


@loop
def add_scaled_entries(
    positions: Positions, deltas: Floats, scale: np.float32, merged: Floats
) -> None:
    """Add ``scale`` · delta to ``merged`` at each position, in fp32; the caller checks the sums.

    Positions are inside ``merged`` and distinct. A value that is not finite stays so.
    """
    for i in range(positions.size):
        product = np.float32(scale * deltas[i])
        merged[positions[i]] = np.float32(merged[positions[i]] + product)
