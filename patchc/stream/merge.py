"""Adds the scaled deltas of an additive patch to a chunk's words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from patchc.errors import NumericError
from patchc.formats import ChunkRecord, ComponentEntries, Patch, TensorRecord
from patchc.kernels.deltas import from_bf16, from_int8
from patchc.kernels.merge import add_scaled_entries, load_fp32, round_masked
from patchc.stream.workers import scratch

Words = NDArray[np.unsignedinteger]
Deltas = NDArray[np.float32]


def merge_chunk(
    patch: Patch,
    record: TensorRecord,
    chunk: ChunkRecord,
    words: Words,
    scales: Sequence[float],
) -> None:
    """Add each component's scaled deltas to a chunk's words, in place.

    fp32(fp32(word + scale₀ · delta₀) + scale₁ · delta₁) …, rounded once to the words' dtype, at the
    words that a component touches (SPEC.md, section 6.3).

    Raises:
        NumericError: a merged value is not finite or overflows; names tensor and flat index.
        PatchFormatError: the chunk's body is damaged.
    """
    parts = patch.read_deltas(record, chunk)
    mask: NDArray[np.bool_] = scratch("mask", len(words), np.bool_)
    mask[:] = False
    for part in parts:
        mask[part.positions] = True
    code = record.dtype.code
    merged: Deltas = scratch("merged", len(words), np.float32)
    load_fp32(words, code, mask, merged)
    for part in parts:
        add_scaled_entries(
            part.positions, _values(part), np.float32(scales[part.component]), merged
        )
    fault = round_masked(words, code, mask, merged, words)
    if fault >= 0:
        index = chunk.number * patch.chunk_words + fault
        raise NumericError(
            f"tensor {record.name!r}, flat index {index}: the merged value is not finite or too "
            f"large for {record.dtype.name}; lower alpha and beta, or use the patch's own base"
        )


def _values(part: ComponentEntries) -> Deltas:
    if part.values.dtype == np.int8:
        return from_int8(part.values, part.absmax)
    deltas = np.empty(len(part.values), np.float32)
    from_bf16(part.values, deltas)
    return deltas
