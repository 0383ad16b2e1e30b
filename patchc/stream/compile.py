"""Writes a patch from a base and a source of changes, chunk by chunk, in one pass over the base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.files import staged_file
from patchc.formats import EncodedChunk, PatchWriter, encode_chunk
from patchc.hashing import chunk_digest, model_digest, tensor_digest
from patchc.kernels.ulp import changed_steps
from patchc.progress import Progress, ProgressEvent
from patchc.stream.grid import Chunk, grid
from patchc.stream.workers import Workers, scratch

Words = NDArray[np.unsignedinteger]


class TensorChanges(Protocol):
    """What happens to one tensor."""

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        """The chunk's words in the base and after the change; called from worker threads.

        Both may lie in scratch buffers. The same array twice means that nothing changes.
        """

    def finish(self) -> None:
        """Called once, in order, after the last chunk was read."""


class ChangeSource(Protocol):
    """What happens to a model."""

    def open_tensor(self, tensor: TensorInfo, chunks: list[Chunk]) -> TensorChanges:
        """Prepare a tensor; called in the main thread, in the order of the names' bytes."""

    def metadata(self) -> Mapping[str, Any]:
        """The patch's provenance, asked for after the last tensor."""


@dataclass(frozen=True)
class CompiledPatch:
    """What was written."""

    root: bytes
    size: int
    entries: int
    words: int
    base_digest: bytes
    result_digest: bytes


@dataclass(frozen=True)
class _Job:
    tensor: TensorInfo
    changes: TensorChanges
    chunk: Chunk | None


@dataclass(frozen=True)
class _Outcome:
    base_digest: bytes
    result_digest: bytes
    encoded: EncodedChunk | None


def compile_patch(
    out: Path,
    base: Checkpoint,
    source: ChangeSource,
    workers: Workers,
    chunk_bits: int,
    stage: str,
    progress: Progress,
) -> CompiledPatch:
    """Stream the base and its changes into a patch file that appears whole or not at all.

    Raises:
        StorageError: the output cannot be written.
        PatchcError: whatever the source raises.
    """
    tensors = sorted(base.tensors.values(), key=lambda tensor: tensor.name.encode())
    total = sum(tensor.words for tensor in tensors)
    done = entries = 0
    base_tensors: list[tuple[str, bytes]] = []
    result_tensors: list[tuple[str, bytes]] = []
    with staged_file(out) as staging, staging.open("wb") as file:
        writer = PatchWriter(file, chunk_bits)
        outcomes: list[_Outcome] = []
        jobs = _jobs(tensors, source, 1 << chunk_bits)
        for job, outcome in workers.map(_run, jobs):
            tensor = job.tensor
            if outcome is not None and job.chunk is not None:
                outcomes.append(outcome)
                done += job.chunk.count
                if outcome.encoded:
                    writer.add_chunk(outcome.encoded)
                    entries += outcome.encoded.record.entries
                progress(ProgressEvent(stage, done, total, "parameters", tensor.name))
                continue
            job.changes.finish()
            base_digest = _tensor_digest(tensor, (o.base_digest for o in outcomes))
            result_digest = _tensor_digest(tensor, (o.result_digest for o in outcomes))
            writer.end_tensor(tensor.name, tensor.dtype, tensor.shape, base_digest)
            base_tensors.append((tensor.name, base_digest))
            result_tensors.append((tensor.name, result_digest))
            outcomes.clear()
        base_model, result_model = model_digest(base_tensors), model_digest(result_tensors)
        root = writer.finish(source.metadata(), base_model, result_model)
        size = file.tell()
    return CompiledPatch(root, size, entries, total, base_model, result_model)


def _jobs(tensors: list[TensorInfo], source: ChangeSource, chunk_words: int) -> Iterator[_Job]:
    for tensor in tensors:
        chunks = grid(tensor.words, chunk_words)
        changes = source.open_tensor(tensor, chunks)
        for chunk in chunks:
            yield _Job(tensor, changes, chunk)
        yield _Job(tensor, changes, None)


def _run(job: _Job) -> tuple[_Job, _Outcome | None]:
    chunk = job.chunk
    if chunk is None:
        return job, None
    base, result = job.changes.read(chunk)
    base_digest = chunk_digest(base)
    if result is base:
        return job, _Outcome(base_digest, base_digest, None)
    positions = scratch("positions", chunk.count, np.uint32)
    steps = scratch("steps", chunk.count, np.int64)
    count = changed_steps(base, result, job.tensor.dtype.total_order, positions, steps)
    if not count:
        return job, _Outcome(base_digest, base_digest, None)
    result_digest = chunk_digest(result)
    encoded = encode_chunk(
        chunk.number,
        positions[:count],
        steps[:count],
        chunk.count,
        job.tensor.dtype.word_bits,
        base_digest,
        result_digest,
    )
    return job, _Outcome(base_digest, result_digest, encoded)


def _tensor_digest(tensor: TensorInfo, digests: Iterator[bytes]) -> bytes:
    return tensor_digest(tensor.dtype.name, tensor.shape, digests)
