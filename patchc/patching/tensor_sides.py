"""The words of a patch's tensors on either side, chunk by chunk (SPEC.md, section 4.7)."""

from __future__ import annotations

from collections.abc import Sequence

from patchc.buffers import scratch
from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import Chunk
from patchc.dtypes import Words
from patchc.formats import TensorPair
from patchc.kernels.casts import cast
from patchc.runtime.ranks import deal
from patchc.sides import Side


def unchanged_pairs(model: Checkpoint) -> list[TensorPair]:
    """The rows of a patch that keeps the tensors of a model, in the order of a patch file."""
    tensors = sorted(model.tensors.values(), key=lambda tensor: tensor.name.encode())
    return [TensorPair(t.name, t.dtype, t.shape, t.shape) for t in tensors]


def deal_pairs(rows: Sequence[TensorPair], ranks: int) -> list[Sequence[TensorPair]]:
    """The rows that each rank works on: contiguous runs of about equally many bytes."""
    return [
        rows[part.start : part.stop]
        for part in deal([row.words * row.dtype.word_bytes for row in rows], ranks)
    ]


def words_on(row: TensorPair, chunk: Chunk, side: Side) -> int:
    """How many words of a chunk a side has itself; the others are zeros or a reference's."""
    return min(max(row.words_on(side) - chunk.first, 0), chunk.count)


def read_side(model: Checkpoint, row: TensorPair, chunk: Chunk, side: Side, slot: str) -> Words:
    """The words of a chunk on a side, which ``model`` is, in the scratch buffer ``slot``.

    Raises:
        CheckpointError: a file became unreadable or shorter.
    """
    words: Words = scratch(slot, chunk.count, row.dtype.word)
    if row.shape_on(side) is not None:
        source = model.tensors[row.name]
    elif row.reference is not None:
        source = model.tensors[row.reference]
    else:
        words[:] = 0
        return words
    count = min(max(source.words - chunk.first, 0), chunk.count)
    words[count:] = 0
    if source.dtype == row.dtype:
        model.read_words(source, chunk.first, words[:count])
    else:
        _read_cast(model, source, row, chunk.first, words[:count])
    return words


def _read_cast(
    model: Checkpoint, source: TensorInfo, row: TensorPair, first: int, out: Words
) -> None:
    words: Words = scratch("reference", len(out), source.dtype.word)
    model.read_words(source, first, words)
    cast(words, source.dtype.code, row.dtype.code, out)
