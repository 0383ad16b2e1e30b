"""The sum of two sparse changes of the same words, the second made after the first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.jit import compiled

Positions = NDArray[np.uint32]
Steps = NDArray[np.int64]


def compose_steps(
    first: tuple[Positions, Steps], second: tuple[Positions, Steps], word_bits: int
) -> tuple[Positions, Steps]:
    """Both changes as one: steps add modulo 2^``word_bits``, and those that cancel drop out.

    Args:
        first, second: positions, strictly increasing, and as many steps, none 0 modulo
            2^``word_bits``.
        word_bits: 8, 16, 32 or 64.

    Returns:
        Positions, strictly increasing, and steps in their signed form, none 0.
    """
    most = len(first[0]) + len(second[0])
    positions, steps = np.empty(most, np.uint32), np.empty(most, np.int64)
    count = _sum(*first, *second, np.int64(64 - word_bits), positions, steps)
    return positions[:count], steps[:count]


@compiled
def _sum(
    first: Positions,
    first_steps: Steps,
    second: Positions,
    second_steps: Steps,
    spare: np.int64,
    positions: Positions,
    steps: Steps,
) -> int:
    """Merge into ``positions`` and ``steps`` and return their number; words leave ``spare`` bits
    of 64."""
    i = j = count = 0
    while i < first.size or j < second.size:
        step = np.int64(0)
        takes_first = j == second.size or (i < first.size and first[i] <= second[j])
        takes_second = i == first.size or (j < second.size and second[j] <= first[i])
        if takes_first:
            positions[count] = first[i]
            step += first_steps[i]
            i += 1
        if takes_second:
            positions[count] = second[j]
            step += second_steps[j]
            j += 1
        steps[count] = step << spare >> spare
        count += steps[count] != 0
    return count
