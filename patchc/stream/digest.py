"""The digest that identifies a model, as patches state it."""

from __future__ import annotations

from contextlib import closing

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.formats.layout import DEFAULT_CHUNK_BITS
from patchc.hashing import chunk_digest, model_digest, tensor_digest
from patchc.stream.grid import Chunk, grid
from patchc.stream.workers import Workers, scratch


def digest_checkpoint(
    checkpoint: Checkpoint, workers: Workers, chunk_bits: int = DEFAULT_CHUNK_BITS
) -> bytes:
    """The digest of a checkpoint's tensors over chunks of ``2**chunk_bits`` words, 32 bytes.

    It equals a patch's base or result digest where the patch has the same grid.

    Raises:
        CheckpointError: a file cannot be read.
    """
    chunks = {
        name: grid(tensor.words, 1 << chunk_bits) for name, tensor in checkpoint.tensors.items()
    }
    jobs = ((checkpoint.tensors[name], chunk) for name, parts in chunks.items() for chunk in parts)

    def run(job: tuple[TensorInfo, Chunk]) -> bytes:
        tensor, chunk = job
        words = scratch("words", chunk.count, tensor.dtype.word)
        return chunk_digest(checkpoint.read_words(tensor, chunk.first, words))

    with closing(workers.map(run, jobs)) as digests:
        return model_digest(
            (
                name,
                tensor_digest(
                    tensor.dtype.name, tensor.shape, [next(digests) for _ in chunks[name]]
                ),
            )
            for name, tensor in checkpoint.tensors.items()
        )
