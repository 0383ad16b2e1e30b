"""Compiles a source of changes, chunk by chunk, into a patch file of exact steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np

from patchc.checkpoint import Checkpoint
from patchc.chunks import Chunk
from patchc.compiler.entropy import TensorCounts
from patchc.compiler.pipeline import (
    Check,
    CompiledPatch,
    Source,
    TensorCoder,
    accept,
    write_patch,
)
from patchc.compiler.rank_messages import CodedChunk, TensorReport
from patchc.dtypes import Words
from patchc.errors import OutputError, UsageError
from patchc.formats import EncodedFile, RetentionMask, TensorMasks, TensorPair, encode_chunk
from patchc.formats.change_bits import ChangeBits
from patchc.formats.codecs.conditional.model.chunk_model import exponent_of
from patchc.formats.container.layout import CHUNK_BITS
from patchc.hashing import chunk_digest
from patchc.kernels.histograms import count_words
from patchc.kernels.ulp_steps.cpu import changed_steps
from patchc.output_checks import check_output
from patchc.patching.tensor_sides import words_on
from patchc.runtime.runtime import Runtime

Codec = Literal["auto", "rice"]
"""How steps are coded: in the shorter way, or so that they decode without the base."""

NO_MASKS = TensorMasks()
_NO_POSITIONS, _NO_STEPS = np.empty(0, np.uint32), np.empty(0, np.int64)


class TensorChanges(Protocol):
    """The changes to one tensor."""

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        """The chunk's words in the base and after the change; called from worker threads.

        If a side has fewer words, :class:`TensorPair` says what follows them. Both arrays may lie
        in reused buffers. The same array twice means that nothing changes.
        """

    def finish(self) -> TensorReport:
        """The report for :meth:`Source.note`; called once, after the last chunk was read."""


ChangeSource: TypeAlias = Source[TensorChanges]
"""The changes to the words of a model."""


class ReadChanges:
    """Changes that a function reads, without reports; implements :data:`ChangeSource`."""

    def __init__(
        self,
        read: Callable[[TensorPair, Chunk], tuple[Words, Words]],
        metadata: Mapping[str, Any],
        inputs: Sequence[Checkpoint],
    ) -> None:
        self._read = read
        self._metadata = metadata
        self._inputs = inputs

    def open_tensor(self, pair: TensorPair, _chunks: list[Chunk]) -> TensorChanges:
        """See :class:`Source`."""
        return _ReadTensor(partial(self._read, pair))

    def note(self, tensor: str, report: TensorReport) -> None:
        """Ignore the report, which is empty."""

    def metadata(self) -> Mapping[str, Any]:
        """See :class:`Source`.

        Raises:
            CheckpointError: an input was changed during the run.
        """
        for checkpoint in self._inputs:
            checkpoint.check_unchanged()
        return self._metadata


@dataclass(frozen=True)
class _ReadTensor:
    read_words: Callable[[Chunk], tuple[Words, Words]]

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        return self.read_words(chunk)

    def finish(self) -> TensorReport:
        return {}


def check_patch_output(out: Path, inputs: tuple[Path, ...], chunk_bits: int) -> None:
    """Refuse a path or a grid that no patch can have, before anything heavy starts.

    Raises:
        OutputError: ``out`` exists, or is equal to or inside an input.
        UsageError: the format has no chunks of this size.
    """
    if chunk_bits not in CHUNK_BITS:
        raise UsageError(
            f"chunk_bits is {chunk_bits}; it must lie between {CHUNK_BITS[0]} and {CHUNK_BITS[-1]}"
        )
    check_output(out, inputs)
    if out.is_dir():
        raise OutputError(f"output {out} is a folder and a patch is a file; name a file")


def compile_steps(
    out: Path,
    pairs: Sequence[TensorPair],
    source: ChangeSource,
    chunk_words: int,
    stage: str,
    runtime: Runtime,
    codec: Codec = "auto",
    masks: TensorMasks = NO_MASKS,
    files: Iterable[EncodedFile] = (),
    check: Check = accept,
) -> CompiledPatch:
    """Stream a base and its changes into a patch file that appears whole or not at all.

    Args:
        out: the patch file to write.
        pairs: the base's tensors, then those of the result alone; both sorted by name bytes.
        source: gives the words of each tensor on both sides.
        chunk_words: words in a chunk.
        stage: names the work in progress reports, which count parameters.
        runtime: each rank codes its own tensors; rank 0 writes the file.
        codec: how steps are coded.
        masks: retention masks; changes inside them take fewer bits, others are stored as well.
        files: files that change, sorted by name bytes; consumed after the last tensor.
        check: called with the report before the patch appears; what it raises leaves no patch.

    Raises:
        UsageError: ``codec`` is unknown.
        StorageError: the output cannot be written.
        PatchcError: whatever the source or the check raises.
    """
    if codec not in get_args(Codec):
        raise UsageError(f"codec is {codec!r:.80}; it must be auto or rice")
    coder = _StepCoder(source, codec, masks if codec == "auto" else NO_MASKS, runtime)
    return write_patch(out, pairs, coder, chunk_words, stage, runtime, files, check)


class _StepCoder:
    """Codes exact steps; implements :class:`patchc.compiler.pipeline.ModelCoder`."""

    features = 0

    def __init__(
        self, source: ChangeSource, codec: Codec, masks: TensorMasks, runtime: Runtime
    ) -> None:
        self.codec = codec
        self.tensor_masks = masks
        self.buffers = runtime.buffers
        self.entropy = ChangeBits()
        self._source = source

    @property
    def masks(self) -> Sequence[RetentionMask]:
        return self.tensor_masks.table

    def open_tensor(self, pair: TensorPair, chunks: list[Chunk]) -> TensorCoder:
        return _TensorStepCoder(self, pair, self._source.open_tensor(pair, chunks))

    def note(self, tensor: str, report: TensorReport) -> None:
        self.entropy += ChangeBits(*report["entropy"])
        self._source.note(tensor, report["changes"])

    def metadata(self) -> Mapping[str, Any]:
        return {**self._source.metadata(), "entropy": self.entropy.to_json()}


class _TensorStepCoder:
    """Implements :class:`patchc.compiler.pipeline.TensorCoder`."""

    def __init__(self, model: _StepCoder, pair: TensorPair, changes: TensorChanges) -> None:
        self._model = model
        self._pair = pair
        self._changes = changes
        self._counts = TensorCounts(pair.dtype)

    def finish(self) -> TensorReport:
        entropy = self._counts.entropy()
        return {
            "changes": self._changes.finish(),
            "entropy": [entropy.positions, entropy.values],
        }

    def encode(self, chunk: Chunk) -> CodedChunk:
        base, result = self._changes.read(chunk)
        dtype, masks, buffers = self._pair.dtype, self._model.tensor_masks, self._model.buffers
        of_base, of_result = (words_on(self._pair, chunk, side) for side in ("base", "result"))
        base_digest = chunk_digest(base[:of_base])
        groups = masks.draw(self._pair.name, chunk.first, chunk.count)
        word_counts = count_words(base, *exponent_of(dtype), groups)
        if result is base:
            self._counts.add(word_counts, base, _NO_POSITIONS, _NO_STEPS, groups)
            return CodedChunk(base_digest, base_digest, None)
        positions = buffers.positions(chunk.count, np.uint32)
        steps = buffers.steps(chunk.count, np.int64)
        count = changed_steps(base, result, dtype.total_order, positions, steps)
        positions, steps = positions[:count], steps[:count]
        self._counts.add(word_counts, base, positions, steps, groups)
        if not count and of_base == of_result:
            return CodedChunk(base_digest, base_digest, None)
        result_digest = chunk_digest(result[:of_result])
        if not count:
            return CodedChunk(base_digest, result_digest, None)
        encoded = encode_chunk(
            chunk.number,
            positions,
            steps,
            chunk.count,
            dtype,
            base_digest,
            result_digest,
            base if self._model.codec == "auto" else None,
            masks.by_tensor.get(self._pair.name, 0),
            groups,
            word_counts,
        )
        return CodedChunk(base_digest, result_digest, encoded)
