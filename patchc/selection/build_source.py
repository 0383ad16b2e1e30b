"""The base class of builds: it opens the tensors that take part, and records their statistics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import Chunk
from patchc.compiler.rank_messages import TensorReport
from patchc.dtypes import Words
from patchc.formats import TensorPair
from patchc.hashing import model_digest
from patchc.patching.tensor_sides import deal_pairs, unchanged_pairs
from patchc.runtime.runtime import Buffers, Runtime

Merged = TypeVar("Merged")


class IdentityTensor:
    """A tensor that does not change; implements ``TensorChanges`` and ``TensorDeltas``."""

    def __init__(self, base: Checkpoint, tensor: TensorInfo, buffers: Buffers) -> None:
        self._base = base
        self._tensor = tensor
        self._buffers = buffers

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        """The chunk's words, twice the same array."""
        words = self._buffers.base(chunk.count, self._tensor.dtype.word)
        self._base.read_words(self._tensor, chunk.first, words)
        return words, words

    def read_deltas(self, chunk: Chunk) -> tuple[Words, tuple[()]]:
        """The chunk's words, and no deltas."""
        return self.read(chunk)[0], ()

    def finish(self) -> TensorReport:
        """Nothing to record."""
        return {}


class BuildSource(ABC, Generic[Merged]):
    """A build; implements :class:`patchc.compiler.pipeline.Source`.

    Args:
        base: the model that is changed.
        candidates: the tensors that take part, sorted by the bytes of their names.
        provenance: metadata; the inputs' digests and the statistics are added.
        runtime: threads for the passes before the merge.
        chunk_words: words in a chunk of the grid.
    """

    def __init__(
        self,
        base: Checkpoint,
        candidates: Sequence[TensorInfo],
        provenance: Mapping[str, Any],
        runtime: Runtime,
        chunk_words: int,
    ) -> None:
        self.base = base
        self.runtime = runtime
        self.chunk_words = chunk_words
        self._names = frozenset(tensor.name for tensor in candidates)
        self._provenance = provenance
        self._statistics: dict[str, dict[str, int]] = {}
        self._inputs: dict[str, list[tuple[str, bytes]]] = {}
        ranks = runtime.ranks
        mine = {pair.name for pair in deal_pairs(unchanged_pairs(base), ranks.size)[ranks.rank]}
        self.own = [tensor for tensor in candidates if tensor.name in mine]

    def open_tensor(self, pair: TensorPair, chunks: list[Chunk]) -> IdentityTensor | Merged:
        """See :class:`patchc.compiler.pipeline.Source`."""
        tensor = self.base.tensors[pair.name]
        if tensor.name not in self._names:
            return IdentityTensor(self.base, tensor, self.runtime.buffers)
        return self.open_candidate(tensor, chunks)

    @abstractmethod
    def open_candidate(self, tensor: TensorInfo, chunks: list[Chunk]) -> Merged:
        """Prepare a candidate; called in the order of the bytes of their names."""

    @abstractmethod
    def read_from(self) -> Iterable[Checkpoint]:
        """The inputs; they must not change during the run."""

    def note(self, tensor: str, report: TensorReport) -> None:
        """Take in a candidate's counts and digests; other tensors have none."""
        if report:
            self._statistics[tensor] = report["statistics"]
            for label, digest in report["inputs"].items():
                self._inputs.setdefault(label, []).append((tensor, bytes.fromhex(digest)))

    def metadata(self) -> Mapping[str, Any]:
        """The provenance, one digest for each input model, and the statistics of each tensor.

        Raises:
            CheckpointError: an input was changed during the run.
        """
        for checkpoint in self.read_from():
            checkpoint.check_unchanged()
        inputs = {label: model_digest(pairs).hex() for label, pairs in self._inputs.items()}
        return {**self._provenance, "inputs": inputs, "statistics": self._statistics}
