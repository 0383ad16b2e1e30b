"""Columns of the index that say which chunks change, checked a column at a time (SPEC.md, 4.1).

A file of some kilobytes can have hundreds of thousands of tensors, so none is checked alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from patchc.errors import PatchFormatError
from patchc.formats.container.tensors import TensorPair

_MAX_NUMBER = (1 << 32) - 1
_MOST_BODY_PER_WORD = 128
_MOST_BODY = 1 << 16
"""The most bytes of a chunk's body, beyond those that its words justify."""


def check_chunks(
    pairs: Sequence[TensorPair],
    words: Sequence[int],
    counts: Sequence[int],
    skips: NDArray[np.unsignedinteger],
    entries: NDArray[np.unsignedinteger],
    lengths: NDArray[np.unsignedinteger],
    chunk_words: int,
) -> NDArray[np.uint32]:
    """Check the records of chunks, and return their numbers; a tensor's increase in any case.

    Args:
        pairs: all tensors, in the order of their chunks.
        words: how many each has.
        counts: how many of its chunks each has; they add up to the chunks.
        skips, entries, lengths: columns of the index.
        chunk_words: words in a chunk.

    Raises:
        PatchFormatError: naming what is wrong, and the tensor.
    """
    own = np.array(counts, np.int64)
    ends = np.cumsum(own)
    running = np.cumsum(skips.astype(np.int64) + 1)
    before = np.concatenate((np.zeros(1, np.int64), running))[ends - own]
    numbers = running - 1 - np.repeat(before, own)
    grid = np.repeat(np.array(words, np.int64), own)

    def refuse_where(wrong: NDArray[np.bool_], what: str) -> None:
        if np.any(wrong):
            tensor = pairs[int(np.searchsorted(ends, np.argmax(wrong), "right"))].name
            raise PatchFormatError(f"tensor {tensor!r}: {what}")

    outside = numbers > np.minimum(-(-grid // chunk_words) - 1, _MAX_NUMBER)
    refuse_where(outside, "its chunk numbers are out of range")
    sizes = np.minimum(grid - numbers * chunk_words, chunk_words)
    wrong = (entries == 0) | (entries > sizes)
    refuse_where(wrong, "a chunk changes no word, or more than it has")
    wrong = (lengths == 0) | (lengths > sizes * _MOST_BODY_PER_WORD + _MOST_BODY)
    refuse_where(wrong, "a chunk's body is empty, or longer than its words justify")
    found: NDArray[np.uint32] = numbers.astype(np.uint32)
    return found
