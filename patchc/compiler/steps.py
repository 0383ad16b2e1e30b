"""Writes a patch from a base and a source of changes, chunk by chunk, in one pass over the base."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from patchc.buffers import scratch
from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import Chunk
from patchc.compiler.entropy import TensorCounts
from patchc.compiler.pipeline import CompiledPatch, TensorCoder, write_patch
from patchc.compiler.rank_messages import CodedChunk, TensorReport
from patchc.dtypes import Words
from patchc.errors import OutputError, UsageError
from patchc.files import check_output
from patchc.formats import EncodedFile, RetentionMask, TensorMasks, TensorPair, encode_chunk
from patchc.formats.change_bits import ChangeBits
from patchc.formats.codecs.conditional.model.classes import exponent_of
from patchc.formats.container.layout import CHUNK_BITS
from patchc.hashing import chunk_digest
from patchc.kernels.histograms import count_words
from patchc.kernels.ulp_steps.cpu import changed_steps
from patchc.patching.tensor_sides import unchanged_pairs, words_on
from patchc.progress import Progress
from patchc.runtime.workers import Workers

Codec = Literal["auto", "rice"]
"""How steps are coded: the shorter way, or so that they decode without the base."""

NO_MASKS = TensorMasks()
_NO_POSITIONS, _NO_STEPS = np.empty(0, np.uint32), np.empty(0, np.int64)


class TensorChanges(Protocol):
    """What happens to one tensor."""

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        """The chunk's words in the base and after the change; called from worker threads.

        Where a side has fewer, they go on as :class:`TensorPair` tells. Both may lie in scratch
        buffers. The same array twice means that nothing changes.
        """

    def finish(self) -> TensorReport:
        """Called once, in order, after the last chunk was read; what the source is to be told."""


class ChangeSource(Protocol):
    """What happens to a model that keeps its tensors."""

    def open_tensor(self, tensor: TensorInfo, chunks: list[Chunk]) -> TensorChanges:
        """Prepare a tensor; called in the main thread, in the order of the names' bytes.

        A rank opens the tensors of its own part (:func:`patchc.patching.tensor_sides.deal_pairs`).
        """

    def note(self, tensor: str, finding: TensorReport) -> None:
        """Take in what was found of a tensor, in the process that writes the file, in order."""

    def metadata(self) -> Mapping[str, Any]:
        """The patch's provenance, asked for after the last tensor, in every rank.

        That of rank 0 is kept; the others check that their inputs have not changed.
        """


class UpdateSource(Protocol):
    """What happens to a model whose tensors may come and go."""

    def open_pair(self, row: TensorPair) -> TensorChanges:
        """Prepare a tensor; called in the main thread, in the order of the patch file."""

    def metadata(self) -> Mapping[str, Any]:
        """The patch's provenance, asked for after the last tensor."""


def check_patch_output(out: Path, inputs: tuple[Path, ...], chunk_bits: int) -> None:
    """Refuse a path or a grid that no patch can have, before anything heavy starts.

    Raises:
        OutputError: ``out`` exists, or is equal to or inside an input.
        UsageError: the format has no chunks of this size.
    """
    if chunk_bits not in CHUNK_BITS:
        raise UsageError(
            f"chunk_bits is {chunk_bits}; it must lie between {CHUNK_BITS[0]} and {CHUNK_BITS[-1]}"
        )
    check_output(out, inputs)
    if out.is_dir():
        raise OutputError(f"output {out} is a folder and a patch is a file; name a file")


def compile_patch(
    out: Path,
    base: Checkpoint,
    source: ChangeSource,
    workers: Workers,
    chunk_bits: int,
    stage: str,
    progress: Progress,
    codec: Codec = "auto",
    masks: TensorMasks = NO_MASKS,
) -> CompiledPatch:
    """Stream the base and its changes into a patch file that appears whole or not at all.

    Changes that lie inside ``masks`` take fewer bits; others are stored as well.

    Raises:
        UsageError: ``codec`` is not one.
        StorageError: the output cannot be written.
        PatchcError: whatever the source raises.
    """
    coder = _StepCoder(
        lambda row, chunks: source.open_tensor(base.tensors[row.name], chunks),
        source.metadata,
        codec,
        masks,
        source.note,
    )
    return write_patch(out, unchanged_pairs(base), coder, workers, chunk_bits, stage, progress)


def compile_update(
    out: Path,
    rows: Sequence[TensorPair],
    source: UpdateSource,
    files: Iterable[EncodedFile],
    workers: Workers,
    chunk_bits: int,
    progress: Progress,
    codec: Codec = "auto",
) -> CompiledPatch:
    """The same for tensors that may come, go and change their shape, and for files that change.

    Args:
        out: the patch file to write.
        rows: the base's tensors, then those that only the result has, each sorted by their names'
            bytes.
        source: gives the words of each tensor on both sides.
        files: sorted by their names' bytes; asked for after the last tensor.
        workers, chunk_bits, progress, codec: as for :func:`compile_patch`.
    """
    coder = _StepCoder(lambda row, _: source.open_pair(row), source.metadata, codec, NO_MASKS)
    return write_patch(out, rows, coder, workers, chunk_bits, "diff", progress, files)


class _StepCoder:
    """Codes exact steps; implements :class:`patchc.compiler.pipeline.ModelCoder`."""

    features = 0

    def __init__(
        self,
        open_changes: Callable[[TensorPair, list[Chunk]], TensorChanges],
        metadata: Callable[[], Mapping[str, Any]],
        codec: Codec,
        masks: TensorMasks,
        note: Callable[[str, TensorReport], None] | None = None,
    ) -> None:
        if codec not in get_args(Codec):
            raise UsageError(f"codec is {codec!r}; it must be auto or rice")
        self.codec = codec
        self.tensor_masks = masks if codec == "auto" else NO_MASKS
        self.entropy = ChangeBits()
        self._open_changes = open_changes
        self._metadata = metadata
        self._note = note

    @property
    def masks(self) -> Sequence[RetentionMask]:
        return self.tensor_masks.table

    def open_tensor(self, row: TensorPair, chunks: list[Chunk]) -> TensorCoder:
        return _TensorStepCoder(self, row, self._open_changes(row, chunks))

    def note(self, row: TensorPair, finding: TensorReport) -> None:
        self.entropy += ChangeBits(*finding["entropy"])
        if self._note:
            self._note(row.name, finding["changes"])

    def metadata(self) -> Mapping[str, Any]:
        return {**self._metadata(), "entropy": self.entropy.to_json()}


class _TensorStepCoder:
    """Implements :class:`patchc.compiler.pipeline.TensorCoder`."""

    def __init__(self, model: _StepCoder, row: TensorPair, changes: TensorChanges) -> None:
        self._model = model
        self._row = row
        self._changes = changes
        self._counts = TensorCounts(row.dtype)

    def finish(self) -> TensorReport:
        entropy = self._counts.entropy()
        return {
            "changes": self._changes.finish(),
            "entropy": [entropy.positions, entropy.values],
        }

    def encode(self, chunk: Chunk) -> CodedChunk:
        base, result = self._changes.read(chunk)
        dtype, masks = self._row.dtype, self._model.tensor_masks
        of_base, of_result = (words_on(self._row, chunk, side) for side in ("base", "result"))
        base_digest = chunk_digest(base[:of_base])
        groups = masks.draw(self._row.name, chunk.first, chunk.count)
        held = count_words(base, *exponent_of(dtype), groups)
        if result is base:
            self._counts.add(held, base, _NO_POSITIONS, _NO_STEPS, groups)
            return CodedChunk(base_digest, base_digest, None)
        positions = scratch("positions", chunk.count, np.uint32)
        steps = scratch("steps", chunk.count, np.int64)
        count = changed_steps(base, result, dtype.total_order, positions, steps)
        self._counts.add(held, base, positions[:count], steps[:count], groups)
        if not count and of_base == of_result:
            return CodedChunk(base_digest, base_digest, None)
        result_digest = chunk_digest(result[:of_result])
        if not count:
            return CodedChunk(base_digest, result_digest, None)
        encoded = encode_chunk(
            chunk.number,
            positions[:count],
            steps[:count],
            chunk.count,
            dtype,
            base_digest,
            result_digest,
            base if self._model.codec == "auto" else None,
            masks.rows.get(self._row.name, 0),
            groups,
            held,
        )
        return CodedChunk(base_digest, result_digest, encoded)
