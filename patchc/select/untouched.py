"""A tensor that a build only identifies."""

from __future__ import annotations

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.scratch import scratch
from patchc.stream import Chunk
from patchc.stream.compile import Words
from patchc.stream.parts import Finding


class UntouchedTensor:
    """Reads a tensor that does not change.

    Implements ``TensorChanges`` of :mod:`patchc.stream.compile` and ``TensorDeltas`` of
    :mod:`patchc.stream.additive`.
    """

    def __init__(self, base: Checkpoint, tensor: TensorInfo) -> None:
        self._base = base
        self._tensor = tensor

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        """The chunk's words, twice the same array."""
        words = scratch("base", chunk.count, self._tensor.dtype.word)
        self._base.read_words(self._tensor, chunk.first, words)
        return words, words

    def read_deltas(self, chunk: Chunk) -> tuple[Words, tuple[()]]:
        """The chunk's words, and no deltas."""
        return self.read(chunk)[0], ()

    def finish(self) -> Finding:
        """Nothing to record."""
        return {}
