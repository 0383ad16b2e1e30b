"""Digests of the words that a build may use: those of the retained entries, where these are drawn.

A component that holds the retained entries alone has the same digests as the whole model.
"""

from __future__ import annotations

from dataclasses import dataclass

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import Chunk, pieces
from patchc.dtypes import Words
from patchc.hashing import ChunkHasher
from patchc.kernels.philox import KEEP_ALL, Retention
from patchc.kernels.retained_words import take_retained
from patchc.runtime.runtime import Buffers
from patchc.selection.compact.checkpoint import CompactCheckpoint


@dataclass(frozen=True)
class UsedWords:
    """The words of a model's tensor that a build may use.

    Attributes:
        model: the model.
        info: the tensor.
        retention: which entries are retained; 2³² as its threshold takes all of them.
        buffers: memory for the words.
    """

    model: Checkpoint
    info: TensorInfo
    retention: Retention
    buffers: Buffers

    def hasher(self) -> UsedHasher:
        """Digests the used words of a chunk."""
        return UsedHasher(self)

    def digest(self, chunk: Chunk, words: Words) -> bytes:
        """The digest of the used ones of a whole chunk's words."""
        hasher = UsedHasher(self)
        for piece in pieces(chunk):
            start = piece.first - chunk.first
            hasher.add(words[start : start + piece.count], piece.first)
        return hasher.digest()

    def of(self, words: Words, first: int) -> Words:
        """The used ones of words that were read from flat index ``first`` on, a multiple of 4."""
        if self.retention.threshold == KEEP_ALL:
            return words
        used: Words = self.buffers.used(len(words), words.dtype)
        if isinstance(self.model, CompactCheckpoint):
            held = self.model.read_held(self.info, first, used)
            if held is not None:
                return held
        return used[: take_retained(words, first, self.retention, used)]


class UsedHasher:
    """Digests the used ones of a chunk's words, which come piece by piece."""

    def __init__(self, used: UsedWords) -> None:
        self._used = used
        self._hasher = ChunkHasher()

    def add(self, words: Words, first: int) -> None:
        """Take the next piece, which begins at flat index ``first``, a multiple of 4."""
        self._hasher.add(self._used.of(words, first))

    def digest(self) -> bytes:
        """The digest of all pieces so far."""
        return self._hasher.digest()
