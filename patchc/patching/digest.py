"""The digest that identifies a model, as patches state it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing

from patchc.buffers import scratch
from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import Chunk, grid
from patchc.formats.container.layout import DEFAULT_CHUNK_BITS
from patchc.hashing import chunk_digest, model_digest, tensor_digest
from patchc.progress import Progress, ProgressEvent, ignore_progress
from patchc.runtime.workers import Workers


def digest_checkpoint(
    checkpoint: Checkpoint, workers: Workers, chunk_bits: int = DEFAULT_CHUNK_BITS
) -> bytes:
    """The digest of a checkpoint's tensors over chunks of ``2**chunk_bits`` words, 32 bytes.

    It equals a patch's base or result digest where the patch has the same grid.

    Raises:
        CheckpointError: a file cannot be read.
    """
    return digest_of(checkpoint, chunk_digests(checkpoint, workers, 1 << chunk_bits))


def digest_of(checkpoint: Checkpoint, chunks: Mapping[str, Sequence[bytes]]) -> bytes:
    """The digest of a checkpoint's tensors from the full digests of their chunks, by name."""
    return model_digest(
        (name, tensor_digest(tensor.dtype.name, tensor.shape, chunks[name]))
        for name, tensor in checkpoint.tensors.items()
    )


def chunk_digests(
    checkpoint: Checkpoint,
    workers: Workers,
    chunk_words: int,
    progress: Progress = ignore_progress,
) -> dict[str, list[bytes]]:
    """Full digests of all chunks of all tensors, by the tensors' names; reads everything once.

    Raises:
        CheckpointError: a file cannot be read.
    """
    chunks = {name: grid(tensor.words, chunk_words) for name, tensor in checkpoint.tensors.items()}
    jobs = ((checkpoint.tensors[name], chunk) for name, parts in chunks.items() for chunk in parts)

    def run(job: tuple[TensorInfo, Chunk]) -> bytes:
        tensor, chunk = job
        words = scratch("words", chunk.count, tensor.dtype.word)
        return chunk_digest(checkpoint.read_words(tensor, chunk.first, words))

    total = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    done = 0
    found: dict[str, list[bytes]] = {}
    with closing(workers.map(run, jobs)) as digests:
        for name, tensor in checkpoint.tensors.items():
            found[name] = [next(digests) for _ in chunks[name]]
            done += tensor.nbytes
            progress(ProgressEvent("verify", done, total, "bytes", name))
    return found
