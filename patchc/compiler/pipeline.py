"""Codes a model chunk by chunk and assembles the patch file, for exact and additive values."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from patchc.chunks import Chunk, grid
from patchc.compiler.rank_messages import (
    CodedChunk,
    TensorReport,
    hand_over,
    hex_digests,
    pack_chunk,
    unpack_chunk,
)
from patchc.files import staged_file
from patchc.formats import EncodedFile, PatchWriter, RetentionMask, TensorPair
from patchc.formats.change_bits import ChangeBits
from patchc.formats.container.layout import ADDITIVE
from patchc.hashing import model_digest, tensor_digest
from patchc.patching.tensor_sides import deal_pairs, words_on
from patchc.runtime.ranks import Ranks, staged_by_first
from patchc.runtime.runtime import Runtime
from patchc.sides import Side

Opened = TypeVar("Opened", covariant=True)


class Source(Protocol[Opened]):
    """The changes to a model, opened tensor by tensor."""

    def open_tensor(self, pair: TensorPair, chunks: list[Chunk]) -> Opened:
        """Prepare a tensor; called in the main thread, in the order of the patch file.

        A rank opens its own tensors (:func:`patchc.patching.tensor_sides.deal_pairs`).
        """

    def note(self, tensor: str, report: TensorReport) -> None:
        """Take in the report on a tensor, in order, in the process that writes the file."""

    def metadata(self) -> Mapping[str, Any]:
        """The patch's provenance; called in every rank after the last tensor.

        The file gets that of rank 0. The other ranks check that their inputs have not changed.
        """


class TensorCoder(Protocol):
    """Codes the chunks of one tensor."""

    def encode(self, chunk: Chunk) -> CodedChunk:
        """Read, digest and code a chunk; called from worker threads."""

    def finish(self) -> TensorReport:
        """The report for :meth:`Source.note`; called once, after the last chunk was coded."""


class ModelCoder(Source[TensorCoder], Protocol):
    """Codes the chunks of a model; exact and additive values have one each."""

    @property
    def features(self) -> int:
        """Bits of the features that the file needs."""

    @property
    def masks(self) -> Sequence[RetentionMask]:
        """The retention masks; coded chunks refer to them by number."""

    @property
    def entropy(self) -> ChangeBits | None:
        """The bound for the tensors that were noted; None if it is not known."""


@dataclass(frozen=True)
class CompiledPatch:
    """What was written; an additive patch has no ``result_digest``.

    ``size`` is the size of the file and ``body_bytes`` that of its coded changes. ``coded`` has the
    bits for positions and values, and ``entropy`` the bound for them; None if they are not known.
    ``masks`` counts the retention masks inside which changes are coded.
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
        bits = {"coded": _pack_bits(self.coded), "entropy": _pack_bits(self.entropy)}
        return json.dumps(hex_digests(vars(self)) | bits).encode()

    @classmethod
    def unpack(cls, data: bytes) -> CompiledPatch:
        """Undo :meth:`pack`."""
        fields = json.loads(data)
        for name in ("root", "base_digest", "result_digest"):
            fields[name] = None if fields[name] is None else bytes.fromhex(fields[name])
        for name in ("coded", "entropy"):
            fields[name] = None if fields[name] is None else ChangeBits(*fields[name])
        return cls(**fields)


Check = Callable[[CompiledPatch], None]
"""Called before the patch gets its name; what it raises leaves no patch."""


def accept(_report: CompiledPatch) -> None:
    """Check nothing."""


def _pack_bits(bits: ChangeBits | None) -> list[float] | None:
    return None if bits is None else [bits.positions, bits.values]


@dataclass(frozen=True)
class _Job:
    pair: TensorPair
    coder: TensorCoder
    chunk: Chunk | None


_Outcome = tuple[TensorPair, Chunk, CodedChunk] | tuple[TensorPair, None, TensorReport]
"""A coded chunk, or the report on a finished tensor."""


def write_patch(
    out: Path,
    pairs: Sequence[TensorPair],
    coder: ModelCoder,
    chunk_words: int,
    stage: str,
    runtime: Runtime,
    files: Iterable[EncodedFile] = (),
    check: Check = accept,
) -> CompiledPatch:
    """Code all tensors and write the patch file.

    Each rank codes its own tensors. Rank 0 writes the file and alone needs ``files`` and ``check``;
    what these raise, all ranks raise.
    """
    ranks, runs = runtime.ranks, deal_pairs(pairs, runtime.ranks.size)
    ranks.agree("tensors", repr((chunk_words, coder.features, coder.masks, pairs)).encode())
    outcomes = _code(runs[ranks.rank], coder, chunk_words, stage, runtime)
    with staged_by_first(ranks, staged_file, out) as staging, closing(outcomes):
        if ranks.rank:
            hand_over(ranks, _messages(outcomes, coder))
            return CompiledPatch.unpack(ranks.gather("report")[0])
        with staging.open("wb") as file:
            assembly = _Assembly(file, coder, chunk_words)
            ranks.gather("coded tensors", lambda: assembly.take(outcomes))
            for rank in range(1, ranks.size):
                assembly.take(_received(ranks, rank, runs[rank], chunk_words))

            def finish() -> bytes:
                report = assembly.finish(files)
                check(report)
                return report.pack()

            return CompiledPatch.unpack(ranks.gather("report", finish)[0])


def _code(
    pairs: Sequence[TensorPair],
    coder: ModelCoder,
    chunk_words: int,
    stage: str,
    runtime: Runtime,
) -> Generator[_Outcome, None, None]:
    """Code the chunks of some tensors, and finish each tensor, in order."""
    task = runtime.task(stage, sum(pair.words for pair in pairs), "parameters")
    with closing(runtime.map(_run, _jobs(pairs, coder, chunk_words))) as results:
        for job, coded in results:
            if job.chunk is None or coded is None:
                yield job.pair, None, job.coder.finish()
            else:
                yield job.pair, job.chunk, coded
                task.advance(job.chunk.count, job.pair.name)


def _jobs(pairs: Sequence[TensorPair], model: ModelCoder, chunk_words: int) -> Iterator[_Job]:
    for pair in pairs:
        chunks = grid(pair.words, chunk_words)
        coder = model.open_tensor(pair, chunks)
        for chunk in chunks:
            yield _Job(pair, coder, chunk)
        yield _Job(pair, coder, None)


def _run(job: _Job) -> tuple[_Job, CodedChunk | None]:
    return job, job.coder.encode(job.chunk) if job.chunk else None


def _messages(outcomes: Iterable[_Outcome], coder: ModelCoder) -> Iterator[bytes]:
    for outcome in outcomes:
        yield json.dumps(outcome[2]).encode() if outcome[1] is None else pack_chunk(outcome[2])
    coder.metadata()


def _received(
    ranks: Ranks, rank: int, pairs: Sequence[TensorPair], chunk_words: int
) -> Iterator[_Outcome]:
    for pair in pairs:
        for chunk in grid(pair.words, chunk_words):
            yield pair, chunk, unpack_chunk(ranks.receive(rank))
        yield pair, None, json.loads(ranks.receive(rank))


class _Assembly:
    """Puts coded chunks, in order, into the file and into the digests of tensors and models."""

    def __init__(self, file: BinaryIO, coder: ModelCoder, chunk_words: int) -> None:
        self._file = file
        self._coder = coder
        self._writer = PatchWriter(file, chunk_words, coder.features, coder.masks)
        self._promises_result = not coder.features & ADDITIVE
        self._entries = self._body_bytes = self._words = 0
        self._coded = ChangeBits()
        self._chunks: dict[Side, list[bytes]] = {"base": [], "result": []}
        self._models: dict[Side, list[tuple[str, bytes]]] = {"base": [], "result": []}

    def take(self, outcomes: Iterable[_Outcome]) -> bytes:
        """Put outcomes into the file; the answer for the other ranks is empty."""
        for pair, chunk, found in outcomes:
            if isinstance(found, CodedChunk) and chunk:
                self._add(pair, chunk, found)
            elif not isinstance(found, CodedChunk):
                self._coder.note(pair.name, found)
                self._end_pair(pair)
        return b""

    def _add(self, pair: TensorPair, chunk: Chunk, coded: CodedChunk) -> None:
        if words_on(pair, chunk, "base"):
            self._chunks["base"].append(coded.base_digest)
        if coded.result_digest and words_on(pair, chunk, "result"):
            self._chunks["result"].append(coded.result_digest)
        if coded.encoded:
            self._writer.add_chunk(coded.encoded)
            self._entries += coded.encoded.record.entries
            self._body_bytes += len(coded.encoded.body)
            self._coded += coded.encoded.bits

    def _end_pair(self, pair: TensorPair) -> None:
        digests: list[bytes] = []
        for side, chunks in self._chunks.items():
            shape = pair.shape_on(side)
            if shape is not None:
                digests.append(tensor_digest(pair.dtype.name, shape, chunks))
                self._models[side].append((pair.name, digests[-1]))
            chunks.clear()
        self._writer.end_pair(pair, digests[0])
        self._words += pair.words

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
