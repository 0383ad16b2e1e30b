"""Writes a patch from a base and a source of changes, chunk by chunk, in one pass over the base."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.errors import OutputError, UsageError
from patchc.files import check_output, staged_file
from patchc.formats import (
    EncodedChunk,
    EncodedFile,
    PatchWriter,
    RetentionMask,
    Side,
    TensorMasks,
    TensorRow,
    encode_chunk,
)
from patchc.formats.bits import ChangeBits
from patchc.formats.layout import ADDITIVE, CHUNK_BITS
from patchc.hashing import chunk_digest, model_digest, tensor_digest
from patchc.kernels.ulp import changed_steps
from patchc.progress import Progress, ProgressEvent
from patchc.stream.entropy import TensorCounts
from patchc.stream.grid import Chunk, grid
from patchc.stream.rows import plain_rows, words_on
from patchc.stream.workers import Workers, scratch

Words = NDArray[np.unsignedinteger]
Codec = Literal["auto", "rice"]
"""How steps are coded: the shorter way, or so that they decode without the base."""

NO_MASKS = TensorMasks()
_NO_POSITIONS, _NO_STEPS = np.empty(0, np.uint32), np.empty(0, np.int64)


class TensorChanges(Protocol):
    """What happens to one tensor."""

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        """The chunk's words in the base and after the change; called from worker threads.

        Where a side has fewer, they go on as :class:`TensorRow` tells. Both may lie in scratch
        buffers. The same array twice means that nothing changes.
        """

    def finish(self) -> None:
        """Called once, in order, after the last chunk was read."""


class ChangeSource(Protocol):
    """What happens to a model that keeps its tensors."""

    def open_tensor(self, tensor: TensorInfo, chunks: list[Chunk]) -> TensorChanges:
        """Prepare a tensor; called in the main thread, in the order of the names' bytes."""

    def metadata(self) -> Mapping[str, Any]:
        """The patch's provenance, asked for after the last tensor."""


class UpdateSource(Protocol):
    """What happens to a model whose tensors may come and go."""

    def open_row(self, row: TensorRow) -> TensorChanges:
        """Prepare a tensor; called in the main thread, in the order of the patch file."""

    def metadata(self) -> Mapping[str, Any]:
        """The patch's provenance, asked for after the last tensor."""


@dataclass(frozen=True)
class CodedChunk:
    """A chunk's full digests on both sides, and its coding where it changes.

    With additive values there is no ``result_digest``.
    """

    base_digest: bytes
    result_digest: bytes | None
    encoded: EncodedChunk | None


class TensorCoder(Protocol):
    """Codes the chunks of one tensor."""

    def encode(self, chunk: Chunk) -> CodedChunk:
        """Read, digest and code a chunk; called from worker threads."""

    def finish(self) -> None:
        """Called once, in order, after the last chunk was coded."""


class ModelCoder(Protocol):
    """Codes the chunks of a model; the kinds of values differ in this."""

    @property
    def features(self) -> int:
        """Bits of the features that the file needs."""

    @property
    def masks(self) -> Sequence[RetentionMask]:
        """The retention masks to which coded chunks refer by their place."""

    def open_tensor(self, row: TensorRow, chunks: list[Chunk]) -> TensorCoder:
        """Prepare a tensor; called in the main thread, in the order of the patch file."""

    def metadata(self) -> Mapping[str, Any]:
        """The patch's provenance, asked for after the last tensor."""


@dataclass(frozen=True)
class CompiledPatch:
    """What was written; an additive patch has no ``result_digest``.

    ``size`` is the whole file's and ``body_bytes`` that of the coded changes in it; ``coded`` are
    the bits of positions and values among these, and ``entropy`` the bound for them, None where
    they are not known.
    """

    root: bytes
    size: int
    body_bytes: int
    entries: int
    words: int
    base_digest: bytes
    result_digest: bytes | None
    coded: ChangeBits | None = None
    entropy: ChangeBits | None = None


@dataclass(frozen=True)
class _Job:
    row: TensorRow
    coder: TensorCoder
    chunk: Chunk | None


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
    )
    written = write_patch(out, plain_rows(base), coder, workers, chunk_bits, stage, progress)
    return replace(written, entropy=coder.entropy)


def compile_update(
    out: Path,
    rows: Sequence[TensorRow],
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
    coder = _StepCoder(lambda row, _: source.open_row(row), source.metadata, codec, NO_MASKS)
    written = write_patch(out, rows, coder, workers, chunk_bits, "diff", progress, files)
    return replace(written, entropy=coder.entropy)


def write_patch(
    out: Path,
    rows: Sequence[TensorRow],
    coder: ModelCoder,
    workers: Workers,
    chunk_bits: int,
    stage: str,
    progress: Progress,
    files: Iterable[EncodedFile] = (),
) -> CompiledPatch:
    """Walk over all tensors and put their coded chunks into a file; what all values share."""
    total = sum(row.words for row in rows)
    done = 0
    with staged_file(out) as staging, staging.open("wb") as file:
        writer = PatchWriter(file, chunk_bits, coder.features, coder.masks)
        assembly = _Assembly(writer, promises_result=not coder.features & ADDITIVE)
        with closing(workers.map(_run, _jobs(rows, coder, 1 << chunk_bits))) as results:
            for job, coded in results:
                if job.chunk is None or coded is None:
                    job.coder.finish()
                    assembly.end_row(job.row)
                else:
                    assembly.add(job.row, job.chunk, coded)
                    done += job.chunk.count
                    progress(ProgressEvent(stage, done, total, "parameters", job.row.name))
        for changed in files:
            writer.add_file(changed)
        root, base_digest, result_digest = assembly.finish(coder.metadata())
        size = file.tell()
    return CompiledPatch(
        root,
        size,
        assembly.body_bytes,
        assembly.entries,
        total,
        base_digest,
        result_digest,
        assembly.coded if assembly.coded.total else None,
    )


class _Assembly:
    """Puts coded chunks, in order, into the file and into the digests of tensors and models."""

    def __init__(self, writer: PatchWriter, promises_result: bool) -> None:
        self.entries = 0
        self.body_bytes = 0
        self.coded = ChangeBits()
        self._writer = writer
        self._promises_result = promises_result
        self._chunks: dict[Side, list[bytes]] = {"base": [], "result": []}
        self._models: dict[Side, list[tuple[str, bytes]]] = {"base": [], "result": []}

    def add(self, row: TensorRow, chunk: Chunk, coded: CodedChunk) -> None:
        if words_on(row, chunk, "base"):
            self._chunks["base"].append(coded.base_digest)
        if coded.result_digest and words_on(row, chunk, "result"):
            self._chunks["result"].append(coded.result_digest)
        if coded.encoded:
            self._writer.add_chunk(coded.encoded)
            self.entries += coded.encoded.record.entries
            self.body_bytes += len(coded.encoded.body)
            self.coded += coded.encoded.bits

    def end_row(self, row: TensorRow) -> None:
        digests: list[bytes] = []
        for side, chunks in self._chunks.items():
            shape = row.shape_on(side)
            if shape is not None:
                digests.append(tensor_digest(row.dtype.name, shape, chunks))
                self._models[side].append((row.name, digests[-1]))
            chunks.clear()
        self._writer.end_row(row, digests[0])

    def finish(self, metadata: Mapping[str, Any]) -> tuple[bytes, bytes, bytes | None]:
        base = model_digest(self._models["base"])
        result = model_digest(self._models["result"]) if self._promises_result else None
        if self.coded.total:
            metadata = {**metadata, "coded": self.coded.to_json()}
        return self._writer.finish(metadata, base, result), base, result


def _jobs(rows: Sequence[TensorRow], model: ModelCoder, chunk_words: int) -> Iterator[_Job]:
    for row in rows:
        chunks = grid(row.words, chunk_words)
        coder = model.open_tensor(row, chunks)
        for chunk in chunks:
            yield _Job(row, coder, chunk)
        yield _Job(row, coder, None)


def _run(job: _Job) -> tuple[_Job, CodedChunk | None]:
    return job, job.coder.encode(job.chunk) if job.chunk else None


class _StepCoder:
    """Codes exact steps; implements :class:`ModelCoder`."""

    features = 0

    def __init__(
        self,
        open_changes: Callable[[TensorRow, list[Chunk]], TensorChanges],
        metadata: Callable[[], Mapping[str, Any]],
        codec: Codec,
        masks: TensorMasks,
    ) -> None:
        if codec not in get_args(Codec):
            raise UsageError(f"codec is {codec!r}; it must be auto or rice")
        self.codec = codec
        self.tensor_masks = masks if codec == "auto" else NO_MASKS
        self.entropy = ChangeBits()
        self._open_changes = open_changes
        self._metadata = metadata

    @property
    def masks(self) -> Sequence[RetentionMask]:
        return self.tensor_masks.table

    def open_tensor(self, row: TensorRow, chunks: list[Chunk]) -> TensorCoder:
        return _TensorStepCoder(self, row, self._open_changes(row, chunks))

    def metadata(self) -> Mapping[str, Any]:
        return {**self._metadata(), "entropy": self.entropy.to_json()}


class _TensorStepCoder:
    """Implements :class:`TensorCoder`."""

    def __init__(self, model: _StepCoder, row: TensorRow, changes: TensorChanges) -> None:
        self._model = model
        self._row = row
        self._changes = changes
        self._counts = TensorCounts(row.dtype)

    def finish(self) -> None:
        self._changes.finish()
        self._model.entropy += self._counts.entropy()

    def encode(self, chunk: Chunk) -> CodedChunk:
        base, result = self._changes.read(chunk)
        dtype, masks = self._row.dtype, self._model.tensor_masks
        of_base, of_result = (words_on(self._row, chunk, side) for side in ("base", "result"))
        base_digest = chunk_digest(base[:of_base])
        groups = masks.draw(self._row.name, chunk.first, chunk.count)
        if result is base:
            self._counts.add(base, _NO_POSITIONS, _NO_STEPS, groups)
            return CodedChunk(base_digest, base_digest, None)
        positions = scratch("positions", chunk.count, np.uint32)
        steps = scratch("steps", chunk.count, np.int64)
        count = changed_steps(base, result, dtype.total_order, positions, steps)
        self._counts.add(base, positions[:count], steps[:count], groups)
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
        )
        return CodedChunk(base_digest, result_digest, encoded)
