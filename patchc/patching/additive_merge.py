"""Adds the scaled deltas of an additive patch to the words of a model."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.errors import NumericError, PatchFormatError
from patchc.formats import ChunkRecord, ComponentEntries, Patch, TensorRecord
from patchc.kernels.additive_merge.cpu import add_entries
from patchc.kernels.delta_values import from_bf16, from_int8
from patchc.runtime.device_pool import StagedChunk
from patchc.runtime.ranks import ALONE, Ranks
from patchc.runtime.runtime import Buffers

Deltas = NDArray[np.float32]


class EntryCount:
    """Counts the entries of an additive patch's chunks as they are decoded, in any thread."""

    def __init__(self, patch: Patch) -> None:
        self._path = patch.path
        self._components = patch.additive.components if patch.additive else ()
        self._found = [0] * len(self._components)
        self._lock = threading.Lock()

    def add(self, components: Sequence[ComponentEntries]) -> None:
        """Count the entries of one chunk."""
        with self._lock:
            for component in components:
                self._found[component.component] += len(component.positions)

    def check(self, ranks: Ranks = ALONE) -> None:
        """Compare the sums over all chunks and ranks with the metadata (SPEC.md, section 4.4).

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


class AdditiveMerge:
    """Adds an additive patch to the chunks of a model, from any thread, and counts its entries.

    The value of a word that a component touches becomes
    fp32(fp32(word + scale₀ · delta₀) + scale₁ · delta₁) …, rounded once to the words' dtype
    (SPEC.md, section 6.3). ``scales`` has one scale for each component; they are rounded to fp32.
    """

    def __init__(self, patch: Patch, scales: Sequence[float], buffers: Buffers) -> None:
        self.entries = EntryCount(patch)
        self._patch = patch
        self._scales = [np.float32(scale) for scale in scales]
        self._buffers = buffers

    def add(
        self,
        tensor: TensorRecord,
        change: ChunkRecord,
        words: Words,
        staged: StagedChunk | None = None,
    ) -> None:
        """Add each component's scaled deltas to a chunk's words, in place.

        Where ``staged`` holds the words, a device adds. After a fault the CPU adds again, to name
        it.

        Raises:
            NumericError: a merged value is not finite or overflows; names tensor and flat index.
            PatchFormatError: the chunk's body is damaged.
        """
        components = self._patch.read_deltas(tensor, change)
        self.entries.add(components)
        if staged and self._add_on_device(staged, tensor, components):
            return
        entries = [(one.positions, _deltas(one), self._scales[one.component]) for one in components]
        mask: NDArray[np.bool_] = self._buffers.mask(len(words), np.bool_)
        merged: Deltas = self._buffers.merged(len(words), np.float32)
        fault = add_entries(words, tensor.dtype.code, entries, mask, merged)
        if fault >= 0:
            index = change.number * self._patch.chunk_words + fault
            raise NumericError(
                f"tensor {tensor.name!r}, flat index {index}: the merged value is not finite or "
                f"too large for {tensor.dtype.name}; lower alpha and beta, or use the patch's own "
                "base"
            )

    def _add_on_device(
        self, staged: StagedChunk, tensor: TensorRecord, components: Sequence[ComponentEntries]
    ) -> bool:
        """Add on the device and copy the words back; False means that they are unchanged."""
        import torch

        from patchc.kernels.additive_merge import MOST_COMPONENTS, DeltaEntries, add_deltas
        from patchc.kernels.launch import tensor_dtype

        if len(components) > MOST_COMPONENTS:
            return False
        pool = staged.pool
        there = staged.upload(tensor_dtype(tensor.dtype))
        entries = [
            DeltaEntries(
                pool.send(f"positions {n}", component.positions.astype(np.int32), torch.int32),
                pool.send(f"deltas {n}", _deltas(component), torch.float32),
                float(self._scales[component.component]),
            )
            for n, component in enumerate(components)
        ]
        with pool.computing():
            try:
                add_deltas(there, entries)
            except NumericError:
                return False
            staged.download()
        return True


def _deltas(component: ComponentEntries) -> Deltas:
    if component.values.dtype == np.int8:
        return from_int8(component.values, component.absmax)
    deltas = np.empty(len(component.values), np.float32)
    from_bf16(component.values, deltas)
    return deltas
