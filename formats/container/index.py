"""The index of a patch file: every tensor, and every chunk and file that changes.

Stored as columns (SPEC.md, section 4). Bodies lie in the order of the index, so their offsets
follow from their lengths: overlaps and holes cannot be expressed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from patchc.errors import PatchFormatError
from patchc.formats.container.bodies import BodyRecord
from patchc.formats.container.chunk_columns import check_chunks
from patchc.formats.container.column_codec import ColumnReader, pack_numbers
from patchc.formats.container.file_changes import FileRecord
from patchc.formats.container.layout import MAX_CHUNKS, MAX_TENSORS, PROLOGUE, chunks_in_grid
from patchc.formats.container.retention_masks import (
    RetentionMask,
    check_references,
    pack_masks,
    read_masks,
)
from patchc.formats.container.tensors import TensorPair, TensorRecord, pack_tensors, read_tensors
from patchc.formats.container.update import pack_update, read_update
from patchc.hashing import DIGEST_BYTES, SHORT_DIGEST_BYTES
from patchc.sides import Side

_COUNTS = struct.Struct("<II")
_DIGESTS = ("body_digest", "base_digest", "result_digest")


@dataclass(frozen=True)
class ChunkRecord(BodyRecord):
    """A chunk that changes.

    Attributes:
        number: its place in the fixed grid of its tensor's chunks.
        codec: id of its codec.
        masks: bit i is set where the body refers to mask i of the table of retention masks.
        entries: number of changed words.
        place: its place in the index.
    """

    number: int
    codec: int
    masks: int
    entries: int
    place: int = 0


@dataclass(frozen=True)
class PatchIndex:
    """All records of a patch.

    Attributes:
        base_digest, result_digest: full digests of the models.
        bodies_digest: full digest over all bodies.
        files_digests: full digests over the files of base and result; None without the feature
            ``update``.
        masks: the retention masks that chunks refer to.
        tensors, added: tensors of the base, and those that only the result has, both in the order
            of their names' bytes.
        files: the files that change.
        numbers, codecs, chunk_masks, entries, lengths, offsets: fields of the chunks, by place.
        body_digests, base_digests, result_digests: short digests of the chunks, joined by place.
    """

    base_digest: bytes
    result_digest: bytes
    bodies_digest: bytes
    files_digests: tuple[bytes, bytes] | None
    masks: tuple[RetentionMask, ...]
    tensors: dict[str, TensorRecord]
    added: dict[str, TensorRecord]
    files: tuple[FileRecord, ...]
    numbers: NDArray[np.uint32]
    codecs: NDArray[np.uint8]
    chunk_masks: NDArray[np.unsignedinteger]
    entries: NDArray[np.uint32]
    lengths: NDArray[np.uint32]
    offsets: NDArray[np.uint64]
    body_digests: bytes
    base_digests: bytes
    result_digests: bytes

    @property
    def records(self) -> list[TensorRecord]:
        """All tensors, in the order of their chunks."""
        return [*self.tensors.values(), *self.added.values()]

    @property
    def keeps_tensors(self) -> bool:
        """Whether both sides have the same tensors, by name, dtype and shape."""
        return all(record.is_plain for record in self.records)

    def changes_on(self, side: Side) -> tuple[int, int]:
        """How many tensors of one side have words that change, and how many words these are.

        A tensor that only the other side has is not counted, so that one under another name, in
        two records, counts once.
        """
        changed = [r.chunks for r in self.tensors_on(side).values() if r.chunks]
        return len(changed), sum(int(self.entries[c.start : c.stop].sum()) for c in changed)

    def digest_on(self, side: Side) -> bytes:
        """Digest of the whole model on one side, 32 bytes."""
        return self.base_digest if side == "base" else self.result_digest

    def tensors_on(self, side: Side) -> dict[str, TensorRecord]:
        """The tensors of one side, by name."""
        if side == "base":
            return self.tensors
        both = {name: record for name, record in self.tensors.items() if record.only is None}
        return both | self.added

    def chunk(self, place: int) -> ChunkRecord:
        """The record of a chunk."""
        cut = slice(place * SHORT_DIGEST_BYTES, (place + 1) * SHORT_DIGEST_BYTES)
        return ChunkRecord(
            number=int(self.numbers[place]),
            codec=int(self.codecs[place]),
            masks=int(self.chunk_masks[place]),
            entries=int(self.entries[place]),
            length=int(self.lengths[place]),
            body_digest=self.body_digests[cut],
            base_digest=self.base_digests[cut],
            result_digest=self.result_digests[cut],
            offset=int(self.offsets[place]),
            place=place,
        )

    def find(self, tensor: TensorRecord, number: int) -> ChunkRecord | None:
        """The record of chunk ``number`` of a tensor, or None where that chunk does not change."""
        chunks = tensor.chunks
        own_numbers = self.numbers[chunks.start : chunks.stop]
        place = chunks.start + int(np.searchsorted(own_numbers, number))
        if place < chunks.stop and self.numbers[place] == number:
            return self.chunk(place)
        return None


def pack_index(
    model_digests: tuple[bytes, bytes],
    bodies_digest: bytes,
    masks: Sequence[RetentionMask],
    tensors: Sequence[TensorRecord],
    chunks: Sequence[ChunkRecord],
    files: Sequence[FileRecord] = (),
    files_digests: tuple[bytes, bytes] | None = None,
) -> tuple[bytes, bytes]:
    """The index's bytes before compression: columns, which compress, and digests, which do not.

    Tensors come as in :attr:`PatchIndex.records`.
    """
    base = [tensor for tensor in tensors if tensor.only != "result"]
    columns = (
        _COUNTS.pack(len(base), len(chunks)),
        pack_masks(masks),
        pack_tensors(base),
        pack_numbers(_skips(tensors, chunks)),
        bytes(chunk.codec for chunk in chunks),
        pack_numbers([chunk.masks for chunk in chunks]) if masks else b"",
        pack_numbers([chunk.entries for chunk in chunks]),
        pack_numbers([chunk.length for chunk in chunks]),
        b"" if files_digests is None else pack_update(tensors, files),
    )
    digests = (
        *model_digests,
        bodies_digest,
        *(files_digests or ()),
        *(tensor.digest or b"" for tensor in tensors),
        *(getattr(chunk, kind) for kind in _DIGESTS for chunk in chunks),
        *(getattr(file, kind) for kind in _DIGESTS for file in files),
    )
    return b"".join(columns), b"".join(digests)


def _skips(tensors: Sequence[TensorRecord], chunks: Sequence[ChunkRecord]) -> list[int]:
    """For each chunk, how many unchanged chunks lie between it and the one before."""
    skips = []
    for tensor in tensors:
        following = 0
        for place in tensor.chunks:
            skips.append(chunks[place].number - following)
            following = chunks[place].number + 1
    return skips


def parse_index(data: bytes, chunk_words: int, bodies_end: int, is_update: bool) -> PatchIndex:
    """Read and check an index.

    Args:
        data: the index, decompressed.
        chunk_words: words in a chunk.
        bodies_end: offset at which the bodies end; the records must fill them exactly.
        is_update: whether the file has the feature ``update``.

    Raises:
        PatchFormatError: naming what is wrong, with the tensor where there is one.
        UnsupportedPatchError: an unknown dtype.
    """
    columns = ColumnReader(data)
    tensor_count, chunk_count = _COUNTS.unpack(columns.take(_COUNTS.size))
    if tensor_count > MAX_TENSORS:
        raise PatchFormatError(f"the index declares {tensor_count} tensors, above the cap")
    if chunk_count > MAX_CHUNKS:
        raise PatchFormatError(f"the index declares {chunk_count} chunks, above the cap")
    if chunk_count * 3 * SHORT_DIGEST_BYTES > columns.left:
        raise PatchFormatError("the index is shorter than its counts declare")
    masks = read_masks(columns)
    pairs, counts = read_tensors(columns, tensor_count)
    if not is_update:
        _check_counts(counts, chunk_count)
    skips, codecs = columns.numbers(chunk_count, 4), columns.bytes_column(chunk_count)
    chunk_masks = columns.numbers(chunk_count, 2) if masks else np.zeros(chunk_count, np.uint16)
    check_references(chunk_masks, codecs, len(masks))
    entries, lengths = columns.numbers(chunk_count, 4), columns.numbers(chunk_count, 4)
    files: list[FileRecord] = []
    if is_update:
        pairs, added_counts, files = read_update(columns, pairs)
        counts += added_counts
        _check_counts(counts, chunk_count)
    base_digest, result_digest, bodies_digest = (columns.take(DIGEST_BYTES) for _ in range(3))
    files_digests = (columns.take(DIGEST_BYTES), columns.take(DIGEST_BYTES)) if is_update else None
    words = [pair.words for pair in pairs]
    numbers = check_chunks(pairs, words, counts, skips, entries, lengths, chunk_words)
    tensors = _records(columns, pairs, words, counts, chunk_words)
    body, base, result = (columns.take(SHORT_DIGEST_BYTES * chunk_count) for _ in range(3))
    of_files = np.array([file.length for file in files], np.uint64)
    offsets = _offsets(np.concatenate((lengths.astype(np.uint64), of_files)), bodies_end)
    files = _with_digests(files, offsets[chunk_count:].tolist(), columns)
    columns.end()
    return PatchIndex(
        base_digest, result_digest, bodies_digest, files_digests, masks,
        {tensor.name: tensor for tensor in tensors if tensor.only != "result"},
        {tensor.name: tensor for tensor in tensors if tensor.only == "result"},
        tuple(files), numbers, codecs, chunk_masks, entries, lengths, offsets[:chunk_count], body,
        base, result,
    )  # fmt: skip


def _check_counts(counts: Sequence[int], chunk_count: int) -> None:
    if sum(counts) != chunk_count:
        raise PatchFormatError("the index's chunk counts do not add up")


def _with_digests(
    files: Sequence[FileRecord], offsets: Sequence[int], columns: ColumnReader
) -> list[FileRecord]:
    digests = [[columns.take(SHORT_DIGEST_BYTES) for _ in files] for _ in range(3)]
    return [
        replace(file, offset=offset, body_digest=body, base_digest=base, result_digest=result)
        for file, offset, body, base, result in zip(files, offsets, *digests, strict=True)
    ]


def _records(
    columns: ColumnReader,
    pairs: Sequence[TensorPair],
    words: Sequence[int],
    counts: Sequence[int],
    chunk_words: int,
) -> list[TensorRecord]:
    """The records of tensors, for which their digests are read."""
    tensors = []
    first = 0
    for pair, size, count in zip(pairs, words, counts, strict=True):
        is_pinned = count == chunks_in_grid(size, chunk_words)
        digest = None if is_pinned else columns.take(SHORT_DIGEST_BYTES)
        tensors.append(TensorRecord.of(pair, digest, range(first, first + count)))
        first += count
    return tensors


def _offsets(lengths: NDArray[np.uint64], bodies_end: int) -> NDArray[np.uint64]:
    ends = np.uint64(PROLOGUE.size) + np.cumsum(lengths, dtype=np.uint64)
    end = int(ends[-1]) if len(ends) else PROLOGUE.size
    if end != bodies_end:
        raise PatchFormatError("the bodies do not fill the space before the index exactly")
    return ends - lengths
