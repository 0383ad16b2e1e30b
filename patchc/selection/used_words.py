"""Digests of the words that a build may use: those of the retained entries, where these are drawn.

A component that holds the retained entries alone has the same digests as the whole model.
"""

from __future__ import annotations

from patchc.chunks import Chunk, pieces
from patchc.dtypes import Words
from patchc.hashing import ChunkHasher
from patchc.kernels.philox import KEEP_ALL, Retention
from patchc.kernels.retained_words import take_retained
from patchc.runtime.runtime import Buffers


class UsedHasher:
    """Digests the retained ones of a chunk's words, which come piece by piece.

    Args:
        retention: which entries are retained; 2³² as its threshold takes all of them.
        buffers: memory for the words that are taken.
    """

    def __init__(self, retention: Retention, buffers: Buffers) -> None:
        self._hasher = ChunkHasher()
        self._retention = retention
        self._buffers = buffers

    def add(self, words: Words, first: int) -> None:
        """Take the next piece, which begins at flat index ``first``, a multiple of 4."""
        if self._retention.threshold == KEEP_ALL:
            self._hasher.add(words)
            return
        used: Words = self._buffers.used(len(words), words.dtype)
        self._hasher.add(used[: take_retained(words, first, self._retention, used)])

    def digest(self) -> bytes:
        """The digest of all pieces so far."""
        return self._hasher.digest()


def used_digest(words: Words, chunk: Chunk, retention: Retention, buffers: Buffers) -> bytes:
    """The digest of the retained ones of a whole chunk's words."""
    hasher = UsedHasher(retention, buffers)
    for piece in pieces(chunk):
        start = piece.first - chunk.first
        hasher.add(words[start : start + piece.count], piece.first)
    return hasher.digest()
