"""Compiles an additive patch from a base and a source of deltas, in one pass over the base."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint import Checkpoint
from patchc.chunks import Chunk
from patchc.compiler.pipeline import (
    Check,
    CompiledPatch,
    Source,
    TensorCoder,
    accept,
    write_patch,
)
from patchc.compiler.rank_messages import CodedChunk, TensorReport
from patchc.dtypes import Words
from patchc.errors import NumericError
from patchc.formats import (
    AdditiveComponent,
    AdditiveValues,
    ComponentEntries,
    TensorPair,
    ValueType,
    encode_deltas,
)
from patchc.formats.container.additive_metadata import METADATA_KEY
from patchc.formats.container.layout import ADDITIVE
from patchc.hashing import chunk_digest
from patchc.kernels.delta_values import first_not_finite, to_bf16, to_int8
from patchc.patching.tensor_sides import unchanged_pairs
from patchc.runtime.runtime import Runtime

Deltas = NDArray[np.float32]


class TensorDeltas(Protocol):
    """What each component adds to one tensor, before the scale that the patch states for it."""

    def read_deltas(self, chunk: Chunk) -> tuple[Words, Sequence[Deltas]]:
        """The chunk's words in the base, and per component a delta for each word.

        A delta is 0 where its component does not select the word. A scale of the tensor's own is
        already applied. Called from worker threads; all arrays may lie in reused buffers. No
        deltas at all mean that nothing changes.
        """

    def finish(self) -> TensorReport:
        """The report for :meth:`Source.note`; called once, after the last chunk was read."""


DeltaSource: TypeAlias = Source[TensorDeltas]
"""What each component adds to a model, before the scale that the patch states for it."""


@dataclass(frozen=True)
class ScaledComponent:
    """A component's name, and the scale that the patch states for all of its deltas."""

    name: str
    scale: float


def compile_additive(
    out: Path,
    base: Checkpoint,
    source: DeltaSource,
    components: Sequence[ScaledComponent],
    value_type: ValueType,
    chunk_words: int,
    runtime: Runtime,
    check: Check = accept,
) -> CompiledPatch:
    """Stream the base and the deltas into an additive patch that appears whole or not at all.

    A delta of 0 is not stored: it would add nothing. ``check`` is as for
    :func:`~patchc.compiler.steps.compile_steps`.

    Raises:
        NumericError: a delta cannot be stored; names tensor and flat index.
        StorageError: the output cannot be written.
        PatchcError: whatever the source or the check raises.
    """
    coder = _DeltaCoder(source, components, value_type)
    return write_patch(
        out, unchanged_pairs(base), coder, chunk_words, "build", runtime, check=check
    )


class _DeltaCoder:
    """Codes deltas and counts the entries of each component; implements :class:`ModelCoder`."""

    features = ADDITIVE
    masks = ()
    entropy = None

    def __init__(
        self,
        source: DeltaSource,
        components: Sequence[ScaledComponent],
        value_type: ValueType,
    ) -> None:
        self._source = source
        self.components = components
        self.value_type = value_type
        self._counts = [0] * len(components)

    def open_tensor(self, pair: TensorPair, chunks: list[Chunk]) -> TensorCoder:
        return _TensorDeltaCoder(self, pair.name, self._source.open_tensor(pair, chunks))

    def note(self, tensor: str, report: TensorReport) -> None:
        for component, count in enumerate(report["counts"]):
            self._counts[component] += count
        self._source.note(tensor, report["deltas"])

    def metadata(self) -> Mapping[str, Any]:
        pairs = zip(self.components, self._counts, strict=True)
        values = AdditiveValues(
            self.value_type, tuple(AdditiveComponent(c.name, c.scale, n) for c, n in pairs)
        )
        return {**self._source.metadata(), METADATA_KEY: values.to_json()}


class _TensorDeltaCoder:
    """Implements :class:`TensorCoder`."""

    def __init__(self, model: _DeltaCoder, tensor: str, deltas: TensorDeltas) -> None:
        self._model = model
        self._tensor = tensor
        self._deltas = deltas
        self._counts = [0] * len(model.components)
        self._lock = threading.Lock()

    def encode(self, chunk: Chunk) -> CodedChunk:
        base, deltas = self._deltas.read_deltas(chunk)
        digest = chunk_digest(base)
        entries = []
        for component, dense in enumerate(deltas):
            positions = np.flatnonzero(dense).astype(np.uint32)
            if len(positions):
                entries.append(self._code(component, positions, dense[positions], chunk))
        if not entries:
            return CodedChunk(digest, None, None)
        with self._lock:
            for one in entries:
                self._counts[one.component] += len(one.positions)
        return CodedChunk(digest, None, encode_deltas(chunk.number, entries, chunk.count, digest))

    def finish(self) -> TensorReport:
        return {"deltas": self._deltas.finish(), "counts": self._counts}

    def _code(
        self, component: int, positions: NDArray[np.uint32], deltas: Deltas, chunk: Chunk
    ) -> ComponentEntries:
        value_type = self._model.value_type
        words = np.empty(len(deltas), np.uint16)
        fault = to_bf16(deltas, words) if value_type == "bf16" else first_not_finite(deltas)
        if fault >= 0:
            raise NumericError(
                f"tensor {self._tensor!r}, flat index {chunk.first + int(positions[fault])}: "
                f"the {self._model.components[component].name} delta is too large for "
                f"{value_type} values; exclude the tensor, or lower its scale"
            )
        if value_type == "bf16":
            return ComponentEntries(component, positions, words, np.empty(0, np.float32))
        return ComponentEntries(component, positions, *to_int8(deltas))
