"""Reads a chunk of several tuned models, piece by piece, in the form that fused merges take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import Chunk, pieces
from patchc.dtypes import Words
from patchc.kernels.bitmask import Bitmask, run_of
from patchc.runtime.runtime import Buffers
from patchc.selection.used_words import UsedHasher

_MOST_WORD_BYTES = 4


@dataclass(frozen=True)
class TunedPiece:
    """A run of a chunk's words.

    Attributes:
        own: its place in the chunk.
        words: uint8 [models, bytes], the words of each model and padding behind shorter ones; the
            next piece overwrites them.
        bitmasks: [models, uint32 words], the entries of each model that take part.
    """

    own: slice
    words: NDArray[np.uint8]
    bitmasks: Bitmask


class TunedTensor:
    """The tensor ``name`` of several tuned models, which all have it in one shape."""

    def __init__(self, models: Sequence[Checkpoint], name: str, buffers: Buffers) -> None:
        self.infos: list[TensorInfo] = [model.tensors[name] for model in models]
        self.codes = np.array([info.dtype.code for info in self.infos], np.int64)
        self._models = models
        self._buffers = buffers

    def read(self, number: int, chunk: Chunk) -> Words:
        """Read a chunk of one model into a buffer of the calling thread."""
        words: Words = self._buffers.tuned(chunk.count, self.infos[number].dtype.word)
        return self._models[number].read_words(self.infos[number], chunk.first, words)

    def pieces(
        self,
        chunk: Chunk,
        bitmasks: Sequence[Bitmask],
        hashers: Sequence[UsedHasher] | None = None,
    ) -> Iterator[TunedPiece]:
        """Read a chunk of all models, piece by piece.

        There is one bitmask per model, and one hasher, which digests the words that are read.

        Raises:
            CheckpointError: a file became unreadable or shorter.
        """
        rows = len(self.infos)
        for piece in pieces(chunk):
            start = piece.first - chunk.first
            size = _MOST_WORD_BYTES * piece.count
            held = self._buffers.tuned_pieces(rows * size, np.uint8).reshape(rows, size)
            for number, info in enumerate(self.infos):
                words = held[number, : piece.count * info.dtype.word_bytes].view(info.dtype.word)
                self._models[number].read_words(info, piece.first, words)
                if hashers is not None:
                    hashers[number].add(words, piece.first)
            own = slice(start, start + piece.count)
            yield TunedPiece(own, held, np.stack([run_of(m, start, piece.count) for m in bitmasks]))
