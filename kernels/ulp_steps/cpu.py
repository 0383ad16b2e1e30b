"""Steps between words, taken and added by compiled loops; see :mod:`patchc.kernels.ulp_steps`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.jit import Integer, allocating_loop, loop
from patchc.simd import BLOCK, differing, lowest

Positions = NDArray[np.uint32]
Steps = NDArray[np.int64]


@loop
def _step(base: Integer, changed: Integer, up: np.uint64, total_order: bool) -> np.int64:
    """The step from one word to another; ``up`` is 64 less the width in bits."""
    b = np.uint64(base) << up
    c = np.uint64(changed) << up
    if total_order:
        b ^= (np.uint64(0) - (b >> np.uint64(63))) >> np.uint64(1)
        c ^= (np.uint64(0) - (c >> np.uint64(63))) >> np.uint64(1)
        b = (b >> up) << up
        c = (c >> up) << up
    return np.int64(c - b) >> np.int64(up)


@loop
def undo_small_steps(base: Words, changed: Words, total_order: bool, least: int) -> None:
    """Put the base's word back, in place, where ``changed`` is fewer than ``least`` steps away."""
    up = np.uint64(64 - 8 * base.itemsize)
    for i in range(base.size):
        if base[i] != changed[i]:
            step = _step(base[i], changed[i], up, total_order)
            if -least < step < least:
                changed[i] = base[i]


@loop
def changed_steps(
    base: Words,
    tuned: Words,
    total_order: bool,
    positions: Positions,
    steps: Steps,
) -> int:
    """Compact the entries that differ into (position, step), in order; return their number.

    ``positions`` and ``steps`` have room for every entry; ``base`` and ``tuned`` are equally long
    and of one unsigned type.
    """
    up = np.uint64(64 - 8 * base.itemsize)
    count = 0
    whole = np.uint64(base.size) // np.uint64(BLOCK) * np.uint64(BLOCK)
    for first in range(np.uint64(0), whole, np.uint64(BLOCK)):
        found = differing(base, tuned, first)
        while found:
            i = first + lowest(found)
            positions[count] = i
            steps[count] = _step(base[i], tuned[i], up, total_order)
            count += 1
            found &= found - np.uint64(1)
    for i in range(whole, np.uint64(base.size)):
        if base[i] != tuned[i]:
            positions[count] = i
            steps[count] = _step(base[i], tuned[i], up, total_order)
            count += 1
    return count


@loop
def add_steps(
    words: Words,
    positions: Positions,
    steps: Steps,
    total_order: bool,
    revert: bool,
) -> None:
    """Add each step to the word at its position, in place; subtract when ``revert`` is set.

    Positions are inside ``words`` and distinct; the caller has checked them.
    """
    up = np.uint64(64 - 8 * words.itemsize)
    for i in range(positions.size):
        at = positions[i]
        value = np.uint64(words[at]) << up
        if total_order:
            value ^= (np.uint64(0) - (value >> np.uint64(63))) >> np.uint64(1)
            value = (value >> up) << up
        step = np.uint64(steps[i]) << up
        value = value - step if revert else value + step
        if total_order:
            value ^= (np.uint64(0) - (value >> np.uint64(63))) >> np.uint64(1)
        words[at] = value >> up


@allocating_loop
def compose_steps(
    first: tuple[Positions, Steps], second: tuple[Positions, Steps], word_bits: int
) -> tuple[Positions, Steps]:
    """Two sparse changes of the same words, the second made after the first, as one.

    Steps add modulo 2^``word_bits``, and those that cancel drop out.

    Args:
        first, second: positions, strictly increasing, and as many steps, none 0 modulo
            2^``word_bits``.
        word_bits: 8, 16, 32 or 64.

    Returns:
        Positions, strictly increasing, and steps in their signed form, none 0.
    """
    positions_1, steps_1 = first
    positions_2, steps_2 = second
    most = positions_1.size + positions_2.size
    positions, steps = np.empty(most, np.uint32), np.empty(most, np.int64)
    spare = np.int64(64 - word_bits)
    i = j = count = 0
    while i < positions_1.size or j < positions_2.size:
        step = np.int64(0)
        ended_1, ended_2 = i == positions_1.size, j == positions_2.size
        takes_1 = ended_2 or (not ended_1 and positions_1[i] <= positions_2[j])
        takes_2 = ended_1 or (not ended_2 and positions_2[j] <= positions_1[i])
        if takes_1:
            positions[count] = positions_1[i]
            step += steps_1[i]
            i += 1
        if takes_2:
            positions[count] = positions_2[j]
            step += steps_2[j]
            j += 1
        steps[count] = step << spare >> spare
        count += steps[count] != 0
    return positions[:count], steps[:count]
