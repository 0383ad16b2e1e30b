"""What a write changes of a chunk, small enough to keep beside it: the image of a chunk.

An image has the 8-byte lanes that differ between two contents of a chunk, as they are in the first
one. It brings back the first from any mixture of both, such as a write that was cut off leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.jit import Integer, loop

LANE_BYTES = 8
IMAGE_BYTES = 12
"""Bytes of an image for each lane: where it is, and what it holds."""

Lanes = NDArray[np.uint64]


@dataclass(frozen=True)
class ChunkImage:
    """Lanes of a chunk: their positions (uint32), and what they hold (uint64)."""

    positions: NDArray[np.uint32]
    values: Lanes

    def restore(self, words: Words) -> bool:
        """Put the lanes back into a chunk; False, and nothing is done, if they do not fit it."""
        lanes = np.zeros(count_lanes(words.nbytes), np.uint64)
        if len(self.positions) and int(self.positions.max()) >= len(lanes):
            return False
        own = lanes.view(np.uint8)[: words.nbytes]
        own[:] = words.view(np.uint8)
        lanes[self.positions] = self.values
        words.view(np.uint8)[:] = own
        return True


def take_image(before: Lanes, after: Lanes) -> ChunkImage:
    """The image that brings ``before`` back; both have zeros behind the chunk's last byte."""
    positions = np.empty(len(before) + 1, np.uint32)
    values = np.empty(len(before) + 1, np.uint64)
    count = _find_changed(before, after, positions, values)
    return ChunkImage(positions[:count].copy(), values[:count].copy())


@loop
def _find_changed(
    before: Lanes, after: Lanes, positions: NDArray[np.uint32], values: Lanes
) -> Integer:
    """Every lane is stored, and the next one stored over it unless it changed: no branch."""
    count = 0
    for place in range(len(before)):
        positions[count] = place
        values[count] = before[place]
        count += before[place] != after[place]
    return count


def count_lanes(nbytes: int) -> int:
    """How many lanes hold so many bytes."""
    return -(-nbytes // LANE_BYTES)


def words_of(lanes: Lanes, dtype: np.dtype[np.unsignedinteger], count: int) -> Words:
    """The first words of lanes, as a view."""
    size = count * dtype.itemsize
    words: Words = lanes.view(np.uint8)[:size].view(dtype)
    return words
