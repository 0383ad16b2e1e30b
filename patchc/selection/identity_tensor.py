"""A tensor that a build only identifies."""

from __future__ import annotations

from patchc.buffers import scratch
from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import Chunk
from patchc.compiler.rank_messages import TensorReport
from patchc.dtypes import Words


class IdentityTensor:
    """Reads a tensor that does not change.

    Implements ``TensorChanges`` of :mod:`patchc.compiler.steps` and ``TensorDeltas`` of
    :mod:`patchc.compiler.additive_deltas`.
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

    def finish(self) -> TensorReport:
        """Nothing to record."""
        return {}
