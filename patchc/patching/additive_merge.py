"""Adds the scaled deltas of an additive patch to a chunk's words."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from patchc.buffers import scratch
from patchc.dtypes import Words
from patchc.errors import NumericError, PatchFormatError
from patchc.formats import ChunkRecord, ComponentEntries, Patch, TensorRecord
from patchc.kernels.delta_values import from_bf16, from_int8
from patchc.kernels.safepatching_merge.reference import add_scaled_entries, load_fp32, round_masked
from patchc.runtime.device_pool import StagedChunk
from patchc.runtime.ranks import ALONE, Ranks

Deltas = NDArray[np.float32]


class EntryCount:
    """Counts the entries of an additive patch's chunks as they are decoded, in any thread."""

    def __init__(self, patch: Patch) -> None:
        self._path = patch.path
        self._components = patch.additive.components if patch.additive else ()
        self._found = [0] * len(self._components)
        self._lock = threading.Lock()

    def add(self, parts: Sequence[ComponentEntries]) -> None:
        """Count the entries of one chunk."""
        with self._lock:
            for part in parts:
                self._found[part.component] += len(part.positions)

    def check(self, ranks: Ranks = ALONE) -> None:
        """Compare the sums over all chunks with what the metadata claims (SPEC.md, section 4.4).

        Those of all ranks are added up.

        Raises:
            PatchFormatError: a component has another number of entries.
        """
        totals = ranks.sum("entries", lambda: np.array(self._found, np.int64))
        for component, total in zip(self._components, totals.tolist(), strict=True):
            if component.entries != total:
                raise PatchFormatError(
                    f"{self._path}: the metadata claims {component.entries} entries of component "
                    f"{component.name!r} and the chunks hold {total}; fetch or build the patch "
                    "again"
                )


def merge_chunk(
    patch: Patch,
    record: TensorRecord,
    chunk: ChunkRecord,
    words: Words,
    scales: Sequence[float],
    count: EntryCount,
    staged: StagedChunk | None = None,
) -> None:
    """Add each component's scaled deltas to a chunk's words, in place, and count them.

    Where ``staged`` holds the words, a device adds; words that it refuses the CPU tries again, to
    name the fault.

    fp32(fp32(word + scale₀ · delta₀) + scale₁ · delta₁) …, rounded once to the words' dtype, at the
    words that a component touches (SPEC.md, section 6.3).

    Raises:
        NumericError: a merged value is not finite or overflows; names tensor and flat index.
        PatchFormatError: the chunk's body is damaged.
    """
    parts = patch.read_deltas(record, chunk)
    count.add(parts)
    if staged and _add_on_device(staged, record, parts, scales):
        return
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


def _add_on_device(
    staged: StagedChunk,
    record: TensorRecord,
    parts: Sequence[ComponentEntries],
    scales: Sequence[float],
) -> bool:
    """Add on the device and bring the words back; False leaves them as they were."""
    import torch

    from patchc.kernels.additive_merge import MOST_COMPONENTS, DeltaEntries, add_deltas
    from patchc.kernels.launch import tensor_dtype

    if len(parts) > MOST_COMPONENTS:
        return False
    staging = staged.staging
    tensor = staged.upload(tensor_dtype(record.dtype))
    entries = [
        DeltaEntries(
            staging.send(f"positions {place}", part.positions.astype(np.int32), torch.int32),
            staging.send(f"deltas {place}", _values(part), torch.float32),
            float(np.float32(scales[part.component])),
        )
        for place, part in enumerate(parts)
    ]
    with staging.computing():
        try:
            add_deltas(tensor, entries)
        except NumericError:
            return False
        staged.download()
    return True


def _values(part: ComponentEntries) -> Deltas:
    if part.values.dtype == np.int8:
        return from_int8(part.values, part.absmax)
    deltas = np.empty(len(part.values), np.float32)
    from_bf16(part.values, deltas)
    return deltas
