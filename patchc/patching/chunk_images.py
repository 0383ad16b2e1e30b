"""What a write changes of a chunk, small enough to keep beside it: the image of a chunk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from patchc.dtypes import Words

POSITION_BYTES = 4


@dataclass(frozen=True)
class ChunkImage:
    """The words of a chunk that change, as they are before.

    It brings back the chunk from any mixture of old and new content, such as a write that was cut
    off leaves.

    Attributes:
        positions: where the words are, uint32.
        words: what they are.
    """

    positions: NDArray[np.uint32]
    words: Words

    @classmethod
    def empty(cls, count: int, dtype: DTypeLike) -> ChunkImage:
        """Room for an image of ``count`` words."""
        return cls(np.empty(count, np.uint32), np.empty(count, dtype))

    def restore(self, words: Words) -> bool:
        """Put the words back into a chunk; False, and nothing is done, if they do not fit it."""
        if len(self.positions) and int(self.positions.max()) >= len(words):
            return False
        words[self.positions] = self.words
        return True


def image_nbytes(count: int, word_bytes: int) -> int:
    """Bytes of an image of ``count`` words."""
    return count * (POSITION_BYTES + word_bytes)
