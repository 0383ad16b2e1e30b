"""Folds consecutive patches into one: adds up their steps, with the base or from files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from patchc.checkpoint import Checkpoint
from patchc.chunks import Chunk
from patchc.compiler.chain_check import changed_numbers
from patchc.compiler.pipeline import CompiledPatch
from patchc.compiler.steps import ReadChanges, compile_steps
from patchc.dtypes import Words
from patchc.errors import ResultMismatchError, UsageError
from patchc.files import staged_file
from patchc.formats import (
    ChunkRecord,
    EncodedChunk,
    Patch,
    PatchWriter,
    TensorPair,
    TensorRecord,
    encode_chunk,
)
from patchc.formats.change_bits import ChangeBits
from patchc.formats.container.layout import chunks_in_grid
from patchc.hashing import chunk_digest
from patchc.kernels.ulp_steps.cpu import compose_steps
from patchc.patching.states import find_chunk_sides, match_tensors
from patchc.patching.tensor_sides import read_side, unchanged_pairs
from patchc.patching.transition import Transition, unsound
from patchc.runtime.runtime import Runtime

Links = list[tuple[Patch, TensorRecord, ChunkRecord]]
"""The patches that change a chunk, in order, with its tensor and change in each."""


def fold_patches(
    out: Path,
    patches: Sequence[Patch],
    metadata: Mapping[str, Any],
    runtime: Runtime,
) -> CompiledPatch:
    """Write the sum of consecutive patches, from the files alone.

    Raises:
        UsageError: a digest is needed that only the base can give.
        ResultMismatchError: steps and digests contradict each other; a patch is not sound.
        PatchFormatError: a body is damaged or was replaced.
        StorageError: the output cannot be written.
    """
    first, last = patches[0], patches[-1]
    tensors = first.index.tensors
    numbers = {name: changed_numbers(patches, name) for name in tensors}
    task = runtime.task("fold", sum(map(len, numbers.values())), "chunks")
    entries = body_bytes = 0
    bits = ChangeBits()

    with staged_file(out) as staging, staging.open("wb") as file:
        writer = PatchWriter(file, first.chunk_words)
        jobs = (_links(patches, name, one) for name in tensors for one in numbers[name].tolist())
        with closing(runtime.map(_sum, jobs)) as results:
            for name, record in tensors.items():
                changed = 0
                for _ in numbers[name]:
                    coded = next(results)
                    if coded:
                        writer.add_chunk(coded)
                        changed, entries = changed + 1, entries + coded.record.entries
                        body_bytes += len(coded.body)
                        bits += coded.bits
                    task.advance(1, name)
                digest = _tensor_digest(first, record, changed)
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
    runtime: Runtime,
) -> CompiledPatch:
    """Write the sum of consecutive patches in one pass over their base, and check every step.

    Raises:
        WrongBaseError: ``base`` is not the first patch's; names the first tensor that differs.
        ResultMismatchError: a patch does not lead where it promises; it is not sound.
        PatchFormatError: a body is damaged or was replaced.
        StorageError: the output cannot be written.
    """
    first, last = patches[0], patches[-1]
    match_tensors(first, base)
    transitions = {patch.path: Transition(patch, base.path) for patch in patches}

    def read(pair: TensorPair, chunk: Chunk) -> tuple[Words, Words]:
        before = read_side(base, pair, chunk, "base", runtime.buffers.base)
        links = _links(patches, pair.name, chunk.number)
        if not links:
            return before, before
        patch, tensor, change = links[0]
        transition = transitions[patch.path]
        if transition.side_of(change, chunk_digest(before)) != "base":
            raise transition.wrong(tensor.name, f"its chunk {change.number} differs")
        after: Words = runtime.buffers.words(chunk.count, pair.dtype.word)
        after[:] = before
        for patch, tensor, change in links:
            transitions[patch.path].cross(tensor, change, after, "result")
        return before, after

    def check(report: CompiledPatch) -> None:
        if report.base_digest != first.index.base_digest:
            find_chunk_sides(first, base, runtime)
            raise unsound(first)
        for patch in patches:
            patch.check_bodies()
        if report.result_digest != last.index.result_digest:
            raise unsound(last)

    source, pairs = ReadChanges(read, metadata, (base,)), unchanged_pairs(base)
    return compile_steps(out, pairs, source, first.chunk_words, "fold", runtime, check=check)


def _links(patches: Sequence[Patch], name: str, number: int) -> Links:
    links = []
    for patch in patches:
        record = patch.index.tensors[name]
        chunk = patch.index.find(record, number)
        if chunk:
            links.append((patch, record, chunk))
    return links


def _sum(links: Links) -> EncodedChunk | None:
    """Add up the steps of a chunk and code them; None if they cancel."""
    patch, record, first = links[0]
    dtype, number, last = record.dtype, first.number, links[-1][2]
    changes = patch.read_changes(record, first)
    for patch, record, chunk in links[1:]:
        changes = compose_steps(changes, patch.read_changes(record, chunk), dtype.word_bits)
    cancelled = not len(changes[0])
    if cancelled != (first.base_digest == last.result_digest):
        raise ResultMismatchError(
            f"{patch.path}: tensor {record.name!r}, chunk {number}: the steps up to this patch "
            "contradict its digests; a patch is not sound, fetch or build it again"
        )
    if cancelled:
        return None
    words = patch.words_in_chunk(record, number)
    return encode_chunk(number, *changes, words, dtype, first.base_digest, last.result_digest)


def _tensor_digest(first: Patch, record: TensorRecord, changed: int) -> bytes:
    if record.digest is not None:
        return record.digest
    if changed == chunks_in_grid(record.words, first.chunk_words):
        return b""
    raise UsageError(
        f"tensor {record.name!r}: a chunk ends as it began, and the digest of the whole tensor, "
        "needed then, is not in the patches; give the base with --base"
    )
