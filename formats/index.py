"""The index of a patch file: every tensor of the base, and every chunk that changes.

Stored as columns (SPEC.md, section 4). Chunk bodies lie in index order, so their offsets follow
from their lengths: overlaps and holes cannot be expressed.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import BY_CODE, DType
from patchc.errors import PatchFormatError, UnsupportedPatchError
from patchc.formats.columns import Columns, pack_names, pack_numbers
from patchc.formats.layout import MAX_RANK, MAX_TENSORS, PROLOGUE, chunks_in_grid
from patchc.formats.masks import RetentionMask, pack_masks, read_masks
from patchc.hashing import DIGEST_BYTES, SHORT_DIGEST_BYTES

_COUNTS = struct.Struct("<II")
_MAX_WORDS = 1 << 62
_MAX_NUMBER = (1 << 32) - 1


@dataclass(frozen=True)
class TensorRecord:
    """A tensor of the base: its identity, and which of its chunks change.

    ``base_digest`` is the short digest of the tensor, None where all of its chunks have rows in the
    index, whose digests pin it; ``chunks`` are these rows.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    base_digest: bytes | None
    chunks: range


@dataclass(frozen=True)
class ChunkRecord:
    """A chunk that changes. Digests are short; ``offset`` and ``length`` locate its body.

    ``row`` is its place in the index; ``number`` counts chunks of the fixed grid from the tensor's
    start; ``entries`` is the number of changed words.
    """

    row: int
    number: int
    codec: int
    entries: int
    offset: int
    length: int
    body_digest: bytes
    base_digest: bytes
    result_digest: bytes


@dataclass(frozen=True)
class PatchIndex:
    """All records of a patch; chunk fields are columns, one row a chunk.

    ``bodies_digest`` is over all bodies; ``masks`` are the retention masks that bodies refer to.
    """

    base_digest: bytes
    result_digest: bytes
    bodies_digest: bytes
    masks: tuple[RetentionMask, ...]
    tensors: dict[str, TensorRecord]
    numbers: NDArray[np.uint32]
    codecs: NDArray[np.uint8]
    entries: NDArray[np.uint32]
    lengths: NDArray[np.uint32]
    offsets: NDArray[np.uint64]
    body_digests: bytes
    base_digests: bytes
    result_digests: bytes

    def chunk(self, row: int) -> ChunkRecord:
        """The chunk at a row."""
        cut = slice(row * SHORT_DIGEST_BYTES, (row + 1) * SHORT_DIGEST_BYTES)
        return ChunkRecord(
            row=row,
            number=int(self.numbers[row]),
            codec=int(self.codecs[row]),
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
) -> tuple[bytes, bytes]:
    """The index's bytes before compression: columns that compress, and digests, which do not.

    ``tensors`` are sorted by the bytes of their names.
    """
    columns = (
        _COUNTS.pack(len(tensors), len(chunks)),
        pack_masks(masks),
        pack_names([tensor.name for tensor in tensors]),
        bytes(tensor.dtype.code for tensor in tensors),
        bytes(len(tensor.shape) for tensor in tensors),
        pack_numbers([size for tensor in tensors for size in tensor.shape]),
        pack_numbers([len(tensor.chunks) for tensor in tensors]),
        pack_numbers(_skips(tensors, chunks)),
        bytes(chunk.codec for chunk in chunks),
        pack_numbers([chunk.entries for chunk in chunks]),
        pack_numbers([chunk.length for chunk in chunks]),
    )
    digests = (
        *model_digests,
        bodies_digest,
        *(tensor.base_digest or b"" for tensor in tensors),
        *(chunk.body_digest for chunk in chunks),
        *(chunk.base_digest for chunk in chunks),
        *(chunk.result_digest for chunk in chunks),
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


def parse_index(data: bytes, chunk_bits: int, bodies_end: int) -> PatchIndex:
    """Read and check an index.

    Args:
        data: the index, decompressed.
        chunk_bits: log2 of the words in a chunk.
        bodies_end: offset at which the chunk bodies end; the records must fill them exactly.

    Raises:
        PatchFormatError: naming what is wrong, with the tensor where there is one.
        UnsupportedPatchError: an unknown dtype.
    """
    columns = Columns(data)
    tensor_count, chunk_count = _COUNTS.unpack(columns.take(_COUNTS.size))
    if tensor_count > MAX_TENSORS:
        raise PatchFormatError(f"the index declares {tensor_count} tensors, above the cap")
    if chunk_count * 3 * SHORT_DIGEST_BYTES > columns.left:
        raise PatchFormatError("the index is shorter than its counts declare")
    masks = read_masks(columns)
    names = columns.names(tensor_count)
    codes, ranks = columns.bytes_column(tensor_count), columns.bytes_column(tensor_count)
    if np.any(ranks > MAX_RANK):
        raise PatchFormatError("the index has a tensor with too many dimensions")
    dims = columns.numbers(int(ranks.sum(dtype=np.int64)), 8)
    counts = columns.numbers(tensor_count, 4)
    if int(counts.sum(dtype=np.uint64)) != chunk_count:
        raise PatchFormatError("the index's chunk counts do not add up")
    skips, codecs = columns.numbers(chunk_count, 4), columns.bytes_column(chunk_count)
    entries, lengths = columns.numbers(chunk_count, 4), columns.numbers(chunk_count, 4)
    base_digest, result_digest, bodies_digest = (columns.take(DIGEST_BYTES) for _ in range(3))
    numbers = np.empty(chunk_count, np.uint32)
    tensors: dict[str, TensorRecord] = {}
    row = dim = 0
    for i, name in enumerate(names):
        dtype = _dtype(name, int(codes[i]))
        shape = _shape(name, dtype, dims[dim : dim + int(ranks[i])])
        grid = chunks_in_grid(dtype.words(shape), chunk_bits)
        rows = range(row, row + int(counts[i]))
        digest = columns.take(SHORT_DIGEST_BYTES) if len(rows) < grid else None
        tensors[name] = TensorRecord(name, dtype, shape, digest, rows)
        if rows:
            own = slice(rows.start, rows.stop)
            numbers[own] = _numbers(name, skips[own], grid)
            _check_entries(tensors[name], numbers[own], entries[own], chunk_bits)
        row, dim = rows.stop, dim + int(ranks[i])
    body, base, result = (columns.take(SHORT_DIGEST_BYTES * chunk_count) for _ in range(3))
    columns.end()
    return PatchIndex(
        base_digest, result_digest, bodies_digest, masks, tensors, numbers, codecs, entries,
        lengths, _offsets(lengths, bodies_end), body, base, result,
    )  # fmt: skip


def _dtype(name: str, code: int) -> DType:
    if code not in BY_CODE:
        raise UnsupportedPatchError(
            f"tensor {name!r} has dtype code {code}, which this patchc does not know; update it"
        )
    return BY_CODE[code]


def _shape(name: str, dtype: DType, dims: NDArray[np.unsignedinteger]) -> tuple[int, ...]:
    shape = tuple(int(size) for size in dims)
    words = math.prod(shape)
    if words > _MAX_WORDS or words * dtype.bits % 8:
        raise PatchFormatError(f"tensor {name!r} has an impossible shape")
    return shape


def _numbers(name: str, skips: NDArray[np.unsignedinteger], grid: int) -> NDArray[np.int64]:
    """Chunk numbers of a tensor with ``grid`` chunks, increasing whatever the skips are."""
    numbers = np.cumsum(skips.astype(np.int64) + 1) - 1
    if numbers[-1] > min(grid - 1, _MAX_NUMBER):
        raise PatchFormatError(f"tensor {name!r}: its chunk numbers are out of range")
    return numbers


def _check_entries(
    tensor: TensorRecord,
    numbers: NDArray[np.uint32],
    entries: NDArray[np.unsignedinteger],
    chunk_bits: int,
) -> None:
    words = tensor.dtype.words(tensor.shape)
    sizes = np.minimum(words - (numbers.astype(np.int64) << chunk_bits), 1 << chunk_bits)
    if np.any(entries == 0) or np.any(entries > sizes):
        raise PatchFormatError(
            f"tensor {tensor.name!r}: a chunk changes no word, or more than it has"
        )


def _offsets(lengths: NDArray[np.unsignedinteger], bodies_end: int) -> NDArray[np.uint64]:
    ends = np.uint64(PROLOGUE.size) + np.cumsum(lengths, dtype=np.uint64)
    end = int(ends[-1]) if len(ends) else PROLOGUE.size
    if end != bodies_end:
        raise PatchFormatError("the chunk bodies do not fill the space before the index exactly")
    return ends - lengths
