"""Puts the coded chunks of a model into a patch file: what all kinds of values share."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from patchc.chunks import Chunk, grid
from patchc.compiler.rank_messages import (
    CodedChunk,
    TensorReport,
    hand_over,
    pack_chunk,
    pack_report,
    unpack_chunk,
    unpack_report,
)
from patchc.files import staged_file
from patchc.formats import EncodedFile, PatchWriter, RetentionMask, TensorPair
from patchc.formats.change_bits import ChangeBits
from patchc.formats.container.layout import ADDITIVE
from patchc.hashing import model_digest, tensor_digest
from patchc.patching.tensor_sides import deal_pairs, words_on
from patchc.progress import Progress, ProgressEvent
from patchc.runtime.ranks import Ranks, staged_by_first
from patchc.runtime.workers import Workers
from patchc.sides import Side


class TensorCoder(Protocol):
    """Codes the chunks of one tensor."""

    def encode(self, chunk: Chunk) -> CodedChunk:
        """Read, digest and code a chunk; called from worker threads."""

    def finish(self) -> TensorReport:
        """Called once, in order, after the last chunk was coded; what the model is to be told."""


class ModelCoder(Protocol):
    """Codes the chunks of a model; the kinds of values differ in this."""

    @property
    def features(self) -> int:
        """Bits of the features that the file needs."""

    @property
    def masks(self) -> Sequence[RetentionMask]:
        """The retention masks to which coded chunks refer by their place."""

    @property
    def entropy(self) -> ChangeBits | None:
        """The bound for the tensors that were noted; None where it is not known."""

    def open_tensor(self, row: TensorPair, chunks: list[Chunk]) -> TensorCoder:
        """Prepare a tensor; called in the main thread, in the order of the patch file."""

    def note(self, row: TensorPair, finding: TensorReport) -> None:
        """Take in what was found of a tensor, in the process that writes the file, in order."""

    def metadata(self) -> Mapping[str, Any]:
        """The patch's provenance, asked for after the last tensor, in every rank."""


@dataclass(frozen=True)
class CompiledPatch:
    """What was written; an additive patch has no ``result_digest``.

    ``size`` is the whole file's and ``body_bytes`` that of the coded changes in it; ``coded`` are
    the bits of positions and values among these, and ``entropy`` the bound for them, None where
    they are not known. ``masks`` counts the retention masks inside which changes are coded.
    """

    root: bytes
    size: int
    body_bytes: int
    entries: int
    words: int
    base_digest: bytes
    result_digest: bytes | None
    coded: ChangeBits | None = None
    entropy: ChangeBits | None = None
    masks: int = 0

    def pack(self) -> bytes:
        """As JSON, for other ranks."""
        fields = {
            name: value.hex() if isinstance(value, bytes) else value
            for name, value in vars(self).items()
        }
        bits = {"coded": _pack_bits(self.coded), "entropy": _pack_bits(self.entropy)}
        return json.dumps(fields | bits).encode()

    @classmethod
    def unpack(cls, data: bytes) -> CompiledPatch:
        """What :meth:`pack` made."""
        fields = json.loads(data)
        for name in ("root", "base_digest", "result_digest"):
            fields[name] = None if fields[name] is None else bytes.fromhex(fields[name])
        for name in ("coded", "entropy"):
            fields[name] = None if fields[name] is None else ChangeBits(*fields[name])
        return cls(**fields)


def _pack_bits(bits: ChangeBits | None) -> list[float] | None:
    return None if bits is None else [bits.positions, bits.values]


@dataclass(frozen=True)
class _Job:
    row: TensorPair
    coder: TensorCoder
    chunk: Chunk | None


_Outcome = tuple[TensorPair, Chunk, CodedChunk] | tuple[TensorPair, None, TensorReport]
"""A chunk that was coded, or a tensor that is finished."""


def write_patch(
    out: Path,
    rows: Sequence[TensorPair],
    coder: ModelCoder,
    workers: Workers,
    chunk_bits: int,
    stage: str,
    progress: Progress,
    files: Iterable[EncodedFile] = (),
) -> CompiledPatch:
    """Walk over all tensors and put their coded chunks into a file; what all values share.

    Each rank codes its own part; rank 0 writes the file, and ``files`` are those that it has.
    """
    ranks, parts = workers.ranks, deal_pairs(rows, workers.ranks.size)
    ranks.agree("tensors", repr((chunk_bits, coder.features, coder.masks, rows)).encode())
    outcomes = _code(parts[ranks.rank], coder, workers, chunk_bits, stage, progress)
    with staged_by_first(ranks, staged_file, out) as staging, closing(outcomes):
        if ranks.rank:
            hand_over(ranks, _messages(outcomes, coder))
            return CompiledPatch.unpack(ranks.gather("report")[0])
        with staging.open("wb") as file:
            return _assemble(file, parts, outcomes, coder, ranks, chunk_bits, files)


def _assemble(
    file: BinaryIO,
    parts: Sequence[Sequence[TensorPair]],
    outcomes: Iterable[_Outcome],
    coder: ModelCoder,
    ranks: Ranks,
    chunk_bits: int,
    files: Iterable[EncodedFile],
) -> CompiledPatch:
    """Write the file from this rank's outcomes, then those of the others."""
    assembly = _Assembly(file, coder, chunk_bits)

    def own_part() -> bytes:
        for outcome in outcomes:
            assembly.take(outcome)
        return b""

    ranks.gather("parts", own_part)
    for rank in range(1, ranks.size):
        for outcome in _received(ranks, rank, parts[rank], 1 << chunk_bits):
            assembly.take(outcome)
    return CompiledPatch.unpack(ranks.gather("report", lambda: assembly.finish(files).pack())[0])


def _code(
    rows: Sequence[TensorPair],
    coder: ModelCoder,
    workers: Workers,
    chunk_bits: int,
    stage: str,
    progress: Progress,
) -> Generator[_Outcome, None, None]:
    """What becomes of each chunk of some tensors, and of each tensor, in order."""
    total, done = sum(row.words for row in rows), 0
    with closing(workers.map(_run, _jobs(rows, coder, 1 << chunk_bits))) as results:
        for job, coded in results:
            if job.chunk is None or coded is None:
                yield job.row, None, job.coder.finish()
            else:
                yield job.row, job.chunk, coded
                done += job.chunk.count
                progress(ProgressEvent(stage, done, total, "parameters", job.row.name))


def _messages(outcomes: Iterable[_Outcome], coder: ModelCoder) -> Iterator[bytes]:
    for outcome in outcomes:
        yield pack_report(outcome[2]) if outcome[1] is None else pack_chunk(outcome[2])
    coder.metadata()


def _received(
    ranks: Ranks, rank: int, rows: Sequence[TensorPair], chunk_words: int
) -> Iterator[_Outcome]:
    for row in rows:
        for chunk in grid(row.words, chunk_words):
            yield row, chunk, unpack_chunk(ranks.receive(rank))
        yield row, None, unpack_report(ranks.receive(rank))


class _Assembly:
    """Puts coded chunks, in order, into the file and into the digests of tensors and models."""

    def __init__(self, file: BinaryIO, coder: ModelCoder, chunk_bits: int) -> None:
        self._file = file
        self._coder = coder
        self._writer = PatchWriter(file, chunk_bits, coder.features, coder.masks)
        self._promises_result = not coder.features & ADDITIVE
        self._entries = self._body_bytes = self._words = 0
        self._coded = ChangeBits()
        self._chunks: dict[Side, list[bytes]] = {"base": [], "result": []}
        self._models: dict[Side, list[tuple[str, bytes]]] = {"base": [], "result": []}

    def take(self, outcome: _Outcome) -> None:
        row, chunk, found = outcome
        if isinstance(found, CodedChunk) and chunk:
            self._add(row, chunk, found)
        elif not isinstance(found, CodedChunk):
            self._coder.note(row, found)
            self._end_pair(row)

    def _add(self, row: TensorPair, chunk: Chunk, coded: CodedChunk) -> None:
        if words_on(row, chunk, "base"):
            self._chunks["base"].append(coded.base_digest)
        if coded.result_digest and words_on(row, chunk, "result"):
            self._chunks["result"].append(coded.result_digest)
        if coded.encoded:
            self._writer.add_chunk(coded.encoded)
            self._entries += coded.encoded.record.entries
            self._body_bytes += len(coded.encoded.body)
            self._coded += coded.encoded.bits

    def _end_pair(self, row: TensorPair) -> None:
        digests: list[bytes] = []
        for side, chunks in self._chunks.items():
            shape = row.shape_on(side)
            if shape is not None:
                digests.append(tensor_digest(row.dtype.name, shape, chunks))
                self._models[side].append((row.name, digests[-1]))
            chunks.clear()
        self._writer.end_pair(row, digests[0])
        self._words += row.words

    def finish(self, files: Iterable[EncodedFile]) -> CompiledPatch:
        for changed in files:
            self._writer.add_file(changed)
        metadata = self._coder.metadata()
        base = model_digest(self._models["base"])
        result = model_digest(self._models["result"]) if self._promises_result else None
        coded = self._coded if self._coded.total else None
        if coded:
            metadata = {**metadata, "coded": coded.to_json()}
        return CompiledPatch(
            root=self._writer.finish(metadata, base, result),
            size=self._file.tell(),
            body_bytes=self._body_bytes,
            entries=self._entries,
            words=self._words,
            base_digest=base,
            result_digest=result,
            coded=coded,
            entropy=self._coder.entropy,
            masks=len(self._coder.masks),
        )


def _jobs(rows: Sequence[TensorPair], model: ModelCoder, chunk_words: int) -> Iterator[_Job]:
    for row in rows:
        chunks = grid(row.words, chunk_words)
        coder = model.open_tensor(row, chunks)
        for chunk in chunks:
            yield _Job(row, coder, chunk)
        yield _Job(row, coder, None)


def _run(job: _Job) -> tuple[_Job, CodedChunk | None]:
    return job, job.coder.encode(job.chunk) if job.chunk else None
