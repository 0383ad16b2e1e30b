"""Reads the words of a patch's tensors on either side, chunk by chunk (SPEC.md, section 4.7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from patchc.buffers import ThreadBuffer
from patchc.checkpoint import Checkpoint
from patchc.chunks import Chunk
from patchc.dtypes import Words
from patchc.formats import TensorPair
from patchc.kernels.rounding.cpu import cast
from patchc.runtime.ranks import deal
from patchc.sides import Side


def unchanged_pairs(model: Checkpoint) -> list[TensorPair]:
    """The tensor pairs of a patch that keeps all tensors, in the order of a patch file."""
    tensors = sorted(model.tensors.values(), key=lambda tensor: tensor.name.encode())
    return [TensorPair(t.name, t.dtype, t.shape, t.shape) for t in tensors]


def deal_pairs(pairs: Sequence[TensorPair], ranks: int) -> list[Sequence[TensorPair]]:
    """The pairs that each rank works on: contiguous runs of about equally many bytes."""
    runs = deal([pair.nbytes for pair in pairs], ranks)
    return [pairs[run.start : run.stop] for run in runs]


def words_on(pair: TensorPair, chunk: Chunk, side: Side) -> int:
    """How many words of a chunk the side itself has; the rest are zeros or a reference's."""
    return min(max(pair.words_on(side) - chunk.first, 0), chunk.count)


def read_side(
    model: Checkpoint, pair: TensorPair, chunk: Chunk, side: Side, buffer: ThreadBuffer
) -> Words:
    """Read a chunk's words from ``model``, which is on ``side``, into a buffer.

    Raises:
        CheckpointError: a file became unreadable or shorter.
    """
    words: Words = buffer(chunk.count, pair.dtype.word)
    name = pair.name if pair.shape_on(side) is not None else pair.reference
    if name is None:
        words[:] = 0
        return words
    source = model.tensors[name]
    count = min(max(source.words - chunk.first, 0), chunk.count)
    words[count:] = 0
    if source.dtype == pair.dtype:
        model.read_words(source, chunk.first, words[:count])
    else:
        other: Words = np.empty(count, source.dtype.word)
        model.read_words(source, chunk.first, other)
        cast(other, source.dtype.code, pair.dtype.code, words[:count])
    return words
