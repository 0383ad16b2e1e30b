"""Computes the digest that identifies a model in patches."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import Chunk, grid
from patchc.formats.container.layout import DEFAULT_CHUNK_BITS
from patchc.hashing import chunk_digest, model_digest, tensor_digest
from patchc.runtime.runtime import Runtime


def digest_checkpoint(
    checkpoint: Checkpoint, runtime: Runtime, chunk_words: int = 1 << DEFAULT_CHUNK_BITS
) -> bytes:
    """The digest of a checkpoint over chunks of ``chunk_words`` words, 32 bytes.

    It can be compared with the digests of a patch that has the same chunk size.

    Raises:
        CheckpointError: a file cannot be read.
    """
    tensors = checkpoint.tensors
    chunks = chunk_digests(checkpoint, tensors.values(), chunk_words, runtime)
    return digest_of(checkpoint, dict(zip(tensors, chunks, strict=True)))


def digest_of(checkpoint: Checkpoint, chunks: Mapping[str, Sequence[bytes]]) -> bytes:
    """The digest of a checkpoint's tensors from the full digests of their chunks, by name."""
    return model_digest(
        (name, tensor_digest(tensor.dtype.name, tensor.shape, chunks[name]))
        for name, tensor in checkpoint.tensors.items()
    )


def chunk_digests(
    checkpoint: Checkpoint, tensors: Iterable[TensorInfo], chunk_words: int, runtime: Runtime
) -> Generator[list[bytes], None, None]:
    """Full digests of all chunks of each tensor, in order; reads everything once."""
    grids = [(tensor, grid(tensor.words, chunk_words)) for tensor in tensors]

    def digest(job: tuple[TensorInfo, Chunk]) -> bytes:
        tensor, chunk = job
        words = runtime.buffers.words(chunk.count, tensor.dtype.word)
        return chunk_digest(checkpoint.read_words(tensor, chunk.first, words))

    jobs = ((tensor, chunk) for tensor, chunks in grids for chunk in chunks)
    with closing(runtime.map(digest, jobs)) as digests:
        for _, chunks in grids:
            yield [next(digests) for _ in chunks]


def read_digests(
    model: Checkpoint, chunk_words: int, stage: str, runtime: Runtime
) -> dict[str, list[bytes]]:
    """Read the whole model: tensor name → full digests of its chunks.

    Raises:
        CheckpointError: a file cannot be read.
    """
    tensors = model.tensors.values()
    task = runtime.task(stage, sum(tensor.nbytes for tensor in tensors), "bytes")
    digests = {}
    with closing(chunk_digests(model, tensors, chunk_words, runtime)) as found:
        for tensor, chunks in zip(tensors, found, strict=True):
            digests[tensor.name] = chunks
            task.advance(tensor.nbytes, tensor.name)
    return digests
