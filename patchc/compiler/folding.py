"""Consecutive patches as one: what they do to each chunk of the grid, with a model or without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchc.buffers import scratch
from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import Chunk
from patchc.compiler.chain_check import changed_numbers
from patchc.compiler.pipeline import CompiledPatch
from patchc.compiler.rank_messages import TensorReport
from patchc.compiler.steps import compile_patch
from patchc.dtypes import Words
from patchc.errors import ResultMismatchError, UsageError, WrongBaseError
from patchc.files import staged_file
from patchc.formats import ChunkRecord, EncodedChunk, Patch, PatchWriter, TensorRecord, encode_chunk
from patchc.formats.change_bits import ChangeBits
from patchc.formats.container.layout import chunks_in_grid
from patchc.hashing import chunk_digest, short
from patchc.kernels.ulp_steps.compose import compose_steps
from patchc.patching.model_walk import take_step, unsound
from patchc.patching.states import find_states, match_tensors
from patchc.progress import Progress, ProgressEvent
from patchc.runtime.workers import Workers

Links = list[tuple[Patch, TensorRecord, ChunkRecord]]
"""The patches that change a chunk, in their order."""


@dataclass(frozen=True)
class _Job:
    tensor: TensorRecord
    number: int
    links: Links


def fold_patches(
    out: Path,
    patches: Sequence[Patch],
    metadata: Mapping[str, Any],
    workers: Workers,
    progress: Progress,
) -> CompiledPatch:
    """Write the sum of patches that meet, from the files alone.

    Raises:
        UsageError: a digest is needed that only the base can give.
        ResultMismatchError: steps and digests contradict each other; a patch is not sound.
        PatchFormatError: a body is damaged or was replaced.
        StorageError: the output cannot be written.
    """
    first, last = patches[0], patches[-1]
    tensors = first.index.tensors
    numbers = {name: changed_numbers(patches, name) for name in tensors}
    total = sum(map(len, numbers.values()))
    done = entries = body_bytes = 0
    bits = ChangeBits()
    chunk_bits = first.chunk_words.bit_length() - 1

    def jobs() -> Iterator[_Job]:
        for name, record in tensors.items():
            for number in numbers[name].tolist():
                yield _Job(record, number, _links(patches, name, number))

    with staged_file(out) as staging, staging.open("wb") as file:
        writer = PatchWriter(file, chunk_bits)
        with closing(workers.map(_sum, jobs())) as results:
            for name, record in tensors.items():
                kept = 0
                for _ in numbers[name]:
                    coded = next(results)
                    if coded:
                        writer.add_chunk(coded)
                        kept, entries = kept + 1, entries + coded.record.entries
                        body_bytes += len(coded.body)
                        bits += coded.bits
                    done += 1
                    progress(ProgressEvent("fold", done, total, "chunks", name))
                digest = _tensor_digest(first, record, kept)
                writer.end_tensor(name, record.dtype, record.shape, digest)
        for patch in patches:
            patch.check_bodies()
        digests = first.index.base_digest, last.index.result_digest
        stated = {**metadata, "coded": bits.to_json()} if bits.total else metadata
        root = writer.finish(stated, *digests)
        size = file.tell()
    words = sum(record.words for record in tensors.values())
    return CompiledPatch(
        root, size, body_bytes, entries, words, *digests, bits if bits.total else None
    )


def fold_onto(
    out: Path,
    base: Checkpoint,
    patches: Sequence[Patch],
    metadata: Mapping[str, Any],
    workers: Workers,
    progress: Progress,
) -> CompiledPatch:
    """Write the sum of patches that meet from their base, which is walked over and checked.

    Raises:
        WrongBaseError: ``base`` is not the first patch's; names the first tensor that differs.
        ResultMismatchError: a patch does not lead where it promises; it is not sound.
        PatchFormatError: a body is damaged or was replaced.
        StorageError: the output cannot be written.
    """
    first, last = patches[0], patches[-1]
    match_tensors(first, base)
    chunk_bits = first.chunk_words.bit_length() - 1
    with staged_file(out) as staging:
        source = _Steps(base, patches, metadata)
        report = compile_patch(staging, base, source, workers, chunk_bits, "fold", progress)
        if report.base_digest != first.index.base_digest:
            find_states(first, base, workers, progress)
            raise unsound(first)
        for patch in patches:
            patch.check_bodies()
        if report.result_digest != last.index.result_digest:
            raise unsound(last)
    return report


def _links(patches: Sequence[Patch], name: str, number: int) -> Links:
    links = []
    for patch in patches:
        record = patch.index.tensors[name]
        chunk = patch.index.find(record, number)
        if chunk:
            links.append((patch, record, chunk))
    return links


def _sum(job: _Job) -> EncodedChunk | None:
    """A chunk's steps added up and coded; None where they cancel."""
    first, last = job.links[0][2], job.links[-1][2]
    dtype = job.tensor.dtype
    patch, record, chunk = job.links[0]
    changes = patch.read_changes(record, chunk)
    for patch, record, chunk in job.links[1:]:
        changes = compose_steps(changes, patch.read_changes(record, chunk), dtype.word_bits)
    cancelled = not len(changes[0])
    if cancelled != (first.base_digest == last.result_digest):
        raise ResultMismatchError(
            f"{patch.path}: tensor {record.name!r}, chunk {job.number}: the steps up to this patch "
            "contradict its digests; a patch is not sound, fetch or build it again"
        )
    if cancelled:
        return None
    words = patch.words_in_chunk(record, job.number)
    return encode_chunk(job.number, *changes, words, dtype, first.base_digest, last.result_digest)


def _tensor_digest(first: Patch, record: TensorRecord, kept: int) -> bytes:
    if record.digest is not None:
        return record.digest
    if kept == chunks_in_grid(record.words, first.chunk_words.bit_length() - 1):
        return b""
    raise UsageError(
        f"tensor {record.name!r}: a chunk ends as it began, and the digest of the whole tensor, "
        "needed then, is not in the patches; give the base with --base"
    )


class _Steps:
    """Takes every patch's step in turn; implements :class:`patchc.compiler.steps.ChangeSource`."""

    def __init__(
        self, base: Checkpoint, patches: Sequence[Patch], metadata: Mapping[str, Any]
    ) -> None:
        self._base = base
        self._patches = patches
        self._metadata = metadata

    def open_tensor(self, tensor: TensorInfo, _chunks: list[Chunk]) -> _TensorSteps:
        return _TensorSteps(self._base, self._patches, tensor)

    def note(self, tensor: str, finding: TensorReport) -> None:
        """Nothing is found but the steps."""

    def metadata(self) -> Mapping[str, Any]:
        return self._metadata


class _TensorSteps:
    """Implements :class:`patchc.compiler.steps.TensorChanges`."""

    def __init__(self, base: Checkpoint, patches: Sequence[Patch], tensor: TensorInfo) -> None:
        self._base = base
        self._patches = patches
        self._tensor = tensor

    def read(self, chunk: Chunk) -> tuple[Words, Words]:
        word = self._tensor.dtype.word
        before = scratch("base", chunk.count, word)
        self._base.read_words(self._tensor, chunk.first, before)
        links = _links(self._patches, self._tensor.name, chunk.number)
        if not links:
            return before, before
        patch, record, first = links[0]
        if short(chunk_digest(before)) != first.base_digest:
            raise WrongBaseError(
                f"{self._base.path} is not the model that {patch.path} was made for: tensor "
                f"{record.name!r}: its chunk {first.number} differs"
            )
        after = scratch("words", chunk.count, word)
        after[:] = before
        for patch, record, link in links:
            take_step(patch, record, link, after, chunk.count, "result")
        return before, after

    def finish(self) -> TensorReport:
        return {}
