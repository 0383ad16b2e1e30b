"""What several tuned models have in a chunk, piece by piece, as fused merges take it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchc.buffers import scratch
from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import Chunk, pieces
from patchc.dtypes import Words
from patchc.hashing import ChunkHasher
from patchc.kernels.bitmask import Bitmask, run_of

_MOST_WORD_BYTES = 4


@dataclass(frozen=True)
class TunedPiece:
    """A run of a chunk's words.

    Attributes:
        own: where it lies in the chunk.
        words: shape (models, bytes): the words of each model, and room behind the shorter ones; in
            a scratch buffer that the next piece overwrites.
        marks: shape (models, marks): the entries of each that take part.
    """

    own: slice
    words: NDArray[np.uint8]
    marks: Bitmask


class TunedTensor:
    """One tensor of several tuned models.

    Args:
        models: the models, all with this tensor in one shape.
        name: the tensor.
    """

    def __init__(self, models: Sequence[Checkpoint], name: str) -> None:
        self.infos: list[TensorInfo] = [model.tensors[name] for model in models]
        self.codes = np.array([info.dtype.code for info in self.infos], np.int64)
        self._models = models

    def read(self, number: int, chunk: Chunk) -> Words:
        """All words of one model in a chunk, in a scratch buffer of the calling thread."""
        words: Words = scratch("tuned", chunk.count, self.infos[number].dtype.word)
        return self._models[number].read_words(self.infos[number], chunk.first, words)

    def pieces(
        self, chunk: Chunk, marks: Sequence[Bitmask], hashers: Sequence[ChunkHasher] | None = None
    ) -> Iterator[TunedPiece]:
        """Read a chunk of all models, a run of words after the other.

        Args:
            chunk: which words.
            marks: the entries of each model that take part.
            hashers: take in the words that are read, one a model.

        Raises:
            CheckpointError: a file became unreadable or shorter.
        """
        rows = len(self.infos)
        for piece in pieces(chunk):
            start = piece.first - chunk.first
            size = _MOST_WORD_BYTES * piece.count
            held = scratch("tuned rows", rows * size, np.uint8).reshape(rows, size)
            for number, info in enumerate(self.infos):
                words = held[number, : piece.count * info.dtype.word_bytes].view(info.dtype.word)
                self._models[number].read_words(info, piece.first, words)
                if hashers is not None:
                    hashers[number].add(words)
            own = slice(start, start + piece.count)
            yield TunedPiece(own, held, np.stack([run_of(m, start, piece.count) for m in marks]))
