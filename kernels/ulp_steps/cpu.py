"""Steps between two words of one dtype, and their exact addition and subtraction.

A float's word maps to its IEEE total-order integer: where the sign bit is set, the magnitude bits
are flipped, and the whole is read as two's complement; −0 and +0 stay distinct and NaN payloads
survive. The map is its own inverse. Other dtypes are raw integers. A step is the difference modulo
2^width in its signed form, so that adding and then subtracting it restores every bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.jit import Integer, compiled, inlined
from patchc.simd import BLOCK, differing, lowest


def steps_oracle(base: Words, tuned: Words, total_order: bool) -> NDArray[np.int64]:
    """The step of every entry, by plain Python integers; the definition of the value coding."""
    width = 8 * base.dtype.itemsize
    return np.array(
        [
            wrapped(
                (_ordered(int(t), width, total_order) - _ordered(int(b), width, total_order)), width
            )
            for b, t in zip(base, tuned, strict=True)
        ],
        np.int64,
    )


def wrapped(value: int, width: int) -> int:
    """``value`` modulo 2^width, as a signed integer."""
    half = 1 << (width - 1)
    return (value + half) % (1 << width) - half


def _ordered(word: int, width: int, total_order: bool) -> int:
    negative = word >> (width - 1)
    return word ^ ((1 << (width - 1)) - 1) if negative and total_order else word


@inlined
def _step(
    base: Integer, changed: Integer, up: np.uint64, down: np.int64, total_order: bool
) -> np.int64:
    """The step from one word to another; ``up`` and ``down`` are 64 less the width in bits."""
    b = np.uint64(base) << up
    c = np.uint64(changed) << up
    if total_order:
        b ^= (np.uint64(0) - (b >> np.uint64(63))) >> np.uint64(1)
        c ^= (np.uint64(0) - (c >> np.uint64(63))) >> np.uint64(1)
        b = (b >> up) << up
        c = (c >> up) << up
    return np.int64(c - b) >> down


@compiled
def undo_small_steps(base: Words, changed: Words, total_order: bool, least: int) -> None:
    """Put the base's word back, in place, where ``changed`` is fewer than ``least`` steps away."""
    up = np.uint64(64 - 8 * base.itemsize)
    down = np.int64(64 - 8 * base.itemsize)
    for i in range(base.size):
        if base[i] != changed[i]:
            step = _step(base[i], changed[i], up, down, total_order)
            if -least < step < least:
                changed[i] = base[i]


@compiled
def changed_steps(
    base: Words,
    tuned: Words,
    total_order: bool,
    positions: NDArray[np.uint32],
    steps: NDArray[np.int64],
) -> int:
    """Compact the entries that differ into (position, step), in order; return their number.

    ``positions`` and ``steps`` have room for every entry; ``base`` and ``tuned`` are equally long
    and of one unsigned type.
    """
    up = np.uint64(64 - 8 * base.itemsize)
    down = np.int64(64 - 8 * base.itemsize)
    count = 0
    whole = np.uint64(base.size) // np.uint64(BLOCK) * np.uint64(BLOCK)
    for first in range(np.uint64(0), whole, np.uint64(BLOCK)):
        found = differing(base, tuned, first)
        while found:
            i = first + lowest(found)
            positions[count] = i
            steps[count] = _step(base[i], tuned[i], up, down, total_order)
            count += 1
            found &= found - np.uint64(1)
    for i in range(whole, np.uint64(base.size)):
        if base[i] != tuned[i]:
            positions[count] = i
            steps[count] = _step(base[i], tuned[i], up, down, total_order)
            count += 1
    return count


@compiled
def add_steps(
    words: Words,
    positions: NDArray[np.uint32],
    steps: NDArray[np.int64],
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
