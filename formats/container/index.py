"""The index of a patch file: every tensor of the base, and every chunk that changes.

Stored as columns (SPEC.md, section 4). Chunk bodies lie in index order, so their offsets follow
from their lengths: overlaps and holes cannot be expressed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from patchc.errors import PatchFormatError
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
_MAX_NUMBER = (1 << 32) - 1


@dataclass(frozen=True)
class ChunkRecord:
    """A chunk that changes. Digests are short; ``offset`` and ``length`` locate its body.

    ``row`` is its place in the index; ``number`` counts chunks of the fixed grid from the tensor's
    start; ``entries`` is the number of changed words; ``masks`` has bit i set where the body refers
    to row i of the table of retention masks.
    """

    row: int
    number: int
    codec: int
    masks: int
    entries: int
    offset: int
    length: int
    body_digest: bytes
    base_digest: bytes
    result_digest: bytes

    def digest_on(self, side: Side) -> bytes:
        """Short digest of the chunk's words on one side."""
        return self.base_digest if side == "base" else self.result_digest


@dataclass(frozen=True)
class PatchIndex:
    """All records of a patch; chunk fields are columns, one row a chunk.

    ``bodies_digest`` is over all bodies; ``masks`` are the retention masks that chunks refer to.
    ``tensors`` are those of the base, ``added`` those that only the result has, both in the order
    of their names' bytes. ``files`` are the files that change, ``files_digests`` the full digests
    over those of base and result; a patch without the feature ``update`` has none.
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
    mask_rows: NDArray[np.unsignedinteger]
    entries: NDArray[np.uint32]
    lengths: NDArray[np.uint32]
    offsets: NDArray[np.uint64]
    body_digests: bytes
    base_digests: bytes
    result_digests: bytes

    @property
    def records(self) -> list[TensorRecord]:
        """All tensors, in the order of their chunks' rows."""
        return [*self.tensors.values(), *self.added.values()]

    @property
    def keeps_tensors(self) -> bool:
        """Whether both sides have the same tensors, by name, dtype and shape."""
        return all(record.is_plain for record in self.records)

    def digest_on(self, side: Side) -> bytes:
        """Digest of the whole model on one side, 32 bytes."""
        return self.base_digest if side == "base" else self.result_digest

    def tensors_on(self, side: Side) -> dict[str, TensorRecord]:
        """The tensors of one side, by name."""
        if side == "base":
            return self.tensors
        kept = {n: record for n, record in self.tensors.items() if record.only is None}
        return kept | self.added

    def chunk(self, row: int) -> ChunkRecord:
        """The chunk at a row."""
        cut = slice(row * SHORT_DIGEST_BYTES, (row + 1) * SHORT_DIGEST_BYTES)
        return ChunkRecord(
            row=row,
            number=int(self.numbers[row]),
            codec=int(self.codecs[row]),
            masks=int(self.mask_rows[row]),
            entries=int(self.entries[row]),
            offset=int(self.offsets[row]),
            length=int(self.lengths[row]),
            body_digest=self.body_digests[cut],
            base_digest=self.base_digests[cut],
            result_digest=self.result_digests[cut],
        )

    def find(self, tensor: TensorRecord, number: int) -> ChunkRecord | None:
        """The record of chunk ``number`` of a tensor, or None where that chunk does not change."""
        rows = tensor.chunks
        row = rows.start + int(np.searchsorted(self.numbers[rows.start : rows.stop], number))
        if row < rows.stop and self.numbers[row] == number:
            return self.chunk(row)
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
    """The index's bytes before compression: columns that compress, and digests, which do not.

    ``tensors`` are those of the base and then those that only the result has, each sorted by the
    bytes of their names; ``files_digests`` is None in a patch without the feature ``update``.
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
        *(chunk.body_digest for chunk in chunks),
        *(chunk.base_digest for chunk in chunks),
        *(chunk.result_digest for chunk in chunks),
        *(file.body_digest for file in files),
        *(file.base_digest for file in files),
        *(file.result_digest for file in files),
    )
    return b"".join(columns), b"".join(digests)


def _skips(tensors: Sequence[TensorRecord], chunks: Sequence[ChunkRecord]) -> list[int]:
    """Chunks without a row that lie before each chunk, from the one before it in its tensor."""
    skips = []
    for tensor in tensors:
        following = 0
        for row in tensor.chunks:
            skips.append(chunks[row].number - following)
            following = chunks[row].number + 1
    return skips


def parse_index(data: bytes, chunk_bits: int, bodies_end: int, is_update: bool) -> PatchIndex:
    """Read and check an index.

    Args:
        data: the index, decompressed.
        chunk_bits: log2 of the words in a chunk.
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
    rows, counts = read_tensors(columns, tensor_count)
    if not is_update:
        _check_counts(counts, chunk_count)
    skips, codecs = columns.numbers(chunk_count, 4), columns.bytes_column(chunk_count)
    mask_rows = columns.numbers(chunk_count, 2) if masks else np.zeros(chunk_count, np.uint16)
    check_references(mask_rows, codecs, len(masks))
    entries, lengths = columns.numbers(chunk_count, 4), columns.numbers(chunk_count, 4)
    files: list[FileRecord] = []
    if is_update:
        rows, added_counts, files = read_update(columns, rows)
        counts += added_counts
        _check_counts(counts, chunk_count)
    base_digest, result_digest, bodies_digest = (columns.take(DIGEST_BYTES) for _ in range(3))
    files_digests = (columns.take(DIGEST_BYTES), columns.take(DIGEST_BYTES)) if is_update else None
    numbers = np.empty(chunk_count, np.uint32)
    tensors: list[TensorRecord] = []
    first = 0
    for row, count in zip(rows, counts, strict=True):
        grid = chunks_in_grid(row.words, chunk_bits)
        own = slice(first, first + count)
        if count:
            numbers[own] = _numbers(row.name, skips[own], grid)
            _check_entries(row, numbers[own], entries[own], chunk_bits)
        digest = columns.take(SHORT_DIGEST_BYTES) if count < grid else None
        tensors.append(TensorRecord(**vars(row), digest=digest, chunks=range(first, first + count)))
        first += count
    body, base, result = (columns.take(SHORT_DIGEST_BYTES * chunk_count) for _ in range(3))
    of_files = np.array([file.length for file in files], np.uint64)
    offsets = _offsets(np.concatenate((lengths.astype(np.uint64), of_files)), bodies_end)
    files = _with_digests(files, offsets[chunk_count:].tolist(), columns)
    columns.end()
    return PatchIndex(
        base_digest, result_digest, bodies_digest, files_digests, masks,
        {tensor.name: tensor for tensor in tensors if tensor.only != "result"},
        {tensor.name: tensor for tensor in tensors if tensor.only == "result"},
        tuple(files), numbers, codecs, mask_rows, entries, lengths, offsets[:chunk_count], body,
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


def _numbers(name: str, skips: NDArray[np.unsignedinteger], grid: int) -> NDArray[np.int64]:
    """Chunk numbers of a tensor with ``grid`` chunks, increasing whatever the skips are."""
    numbers = np.cumsum(skips.astype(np.int64) + 1) - 1
    if numbers[-1] > min(grid - 1, _MAX_NUMBER):
        raise PatchFormatError(f"tensor {name!r}: its chunk numbers are out of range")
    return numbers


def _check_entries(
    tensor: TensorPair,
    numbers: NDArray[np.uint32],
    entries: NDArray[np.unsignedinteger],
    chunk_bits: int,
) -> None:
    sizes = np.minimum(tensor.words - (numbers.astype(np.int64) << chunk_bits), 1 << chunk_bits)
    if np.any(entries == 0) or np.any(entries > sizes):
        raise PatchFormatError(
            f"tensor {tensor.name!r}: a chunk changes no word, or more than it has"
        )


def _offsets(lengths: NDArray[np.uint64], bodies_end: int) -> NDArray[np.uint64]:
    ends = np.uint64(PROLOGUE.size) + np.cumsum(lengths, dtype=np.uint64)
    end = int(ends[-1]) if len(ends) else PROLOGUE.size
    if end != bodies_end:
        raise PatchFormatError("the bodies do not fill the space before the index exactly")
    return ends - lengths
