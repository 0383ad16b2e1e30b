"""The index of a patch file: every tensor of the base, and every chunk that changes.

Stored as columns (SPEC.md, section 4). Chunk bodies lie in index order, so their offsets follow
from their lengths: overlaps and holes cannot be expressed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import BY_CODE, DType
from patchc.errors import PatchFormatError, UnsupportedPatchError
from patchc.formats.layout import MAX_RANK, MAX_TENSORS, PROLOGUE, is_tensor_name
from patchc.hashing import DIGEST_BYTES, SHORT_DIGEST_BYTES

_COUNTS = np.dtype("<u4")
_MAX_WORDS = 1 << 62


@dataclass(frozen=True)
class TensorRecord:
    """A tensor of the base: its identity, and which of its chunks change.

    ``base_digest`` is the short digest of the tensor; ``chunks`` are its rows in the index.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    base_digest: bytes
    chunks: range


@dataclass(frozen=True)
class ChunkRecord:
    """A chunk that changes. Digests are short; ``offset`` and ``length`` locate its body.

    ``number`` counts chunks of the fixed grid from the tensor's start; ``entries`` is the number of
    changed words.
    """

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
    """All records of a patch; chunk fields are columns, one row a chunk."""

    base_digest: bytes
    result_digest: bytes
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
    base_digest: bytes,
    result_digest: bytes,
    tensors: list[TensorRecord],
    chunks: list[ChunkRecord],
) -> bytes:
    """The index's bytes before compression. ``tensors`` are sorted by the bytes of their names."""
    names = [tensor.name.encode() for tensor in tensors]
    dims = [size for tensor in tensors for size in tensor.shape]
    columns = (
        np.array([len(tensors), len(chunks)], _COUNTS),
        base_digest,
        result_digest,
        np.array([len(name) for name in names], "<u2"),
        b"".join(names),
        np.array([tensor.dtype.code for tensor in tensors], "u1"),
        np.array([len(tensor.shape) for tensor in tensors], "u1"),
        np.array(dims, "<u8"),
        b"".join(tensor.base_digest for tensor in tensors),
        np.array([len(tensor.chunks) for tensor in tensors], _COUNTS),
        np.array([chunk.number for chunk in chunks], _COUNTS),
        np.array([chunk.codec for chunk in chunks], "u1"),
        np.array([chunk.entries for chunk in chunks], _COUNTS),
        np.array([chunk.length for chunk in chunks], _COUNTS),
        b"".join(chunk.body_digest for chunk in chunks),
        b"".join(chunk.base_digest for chunk in chunks),
        b"".join(chunk.result_digest for chunk in chunks),
    )
    return b"".join(c if isinstance(c, bytes) else c.tobytes() for c in columns)


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
    columns = _Columns(data)
    tensor_count, chunk_count = (int(n) for n in columns.numbers("<u4", 2))
    if tensor_count > MAX_TENSORS:
        raise PatchFormatError(f"the index declares {tensor_count} tensors, above the cap")
    base_digest, result_digest = columns.take(DIGEST_BYTES), columns.take(DIGEST_BYTES)
    names = _names(columns, tensor_count)
    codes, ranks = columns.numbers("u1", tensor_count), columns.numbers("u1", tensor_count)
    dims = columns.numbers("<u8", int(ranks.sum(dtype=np.int64)))
    digests = columns.take(SHORT_DIGEST_BYTES * tensor_count)
    counts = columns.numbers("<u4", tensor_count)
    if int(counts.sum(dtype=np.uint64)) != chunk_count:
        raise PatchFormatError("the index's chunk counts do not add up")
    numbers, codecs = columns.numbers("<u4", chunk_count), columns.numbers("u1", chunk_count)
    entries, lengths = columns.numbers("<u4", chunk_count), columns.numbers("<u4", chunk_count)
    body, base, result = (columns.take(SHORT_DIGEST_BYTES * chunk_count) for _ in range(3))
    columns.end()
    tensors: dict[str, TensorRecord] = {}
    row = dim = 0
    for i, name in enumerate(names):
        dtype = _dtype(name, int(codes[i]))
        shape = _shape(name, dtype, dims[dim : dim + int(ranks[i])])
        rows = range(row, row + int(counts[i]))
        digest = digests[i * SHORT_DIGEST_BYTES : (i + 1) * SHORT_DIGEST_BYTES]
        tensors[name] = TensorRecord(name, dtype, shape, digest, rows)
        _check_rows(tensors[name], numbers, entries, chunk_bits)
        row, dim = rows.stop, dim + int(ranks[i])
    return PatchIndex(
        base_digest, result_digest, tensors, numbers, codecs, entries, lengths,
        _offsets(lengths, bodies_end), body, base, result,
    )  # fmt: skip


class _Columns:
    """Reads consecutive columns; every length is checked before anything is made from it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        part = self._data[self._at : self._at + length]
        if len(part) != length:
            raise PatchFormatError("the index is shorter than its counts declare")
        self._at += length
        return part

    def numbers(self, dtype: str, count: int) -> NDArray[np.unsignedinteger]:
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype)

    def end(self) -> None:
        if self._at != len(self._data):
            raise PatchFormatError("the index is longer than its counts declare")


def _names(columns: _Columns, count: int) -> Iterator[str]:
    lengths = columns.numbers("<u2", count)
    encoded = columns.take(int(lengths.sum(dtype=np.int64)))
    return _decode_names(lengths.tolist(), encoded)


def _decode_names(lengths: list[int], encoded: bytes) -> Iterator[str]:
    at, last = 0, None
    for length in lengths:
        raw = encoded[at : at + length]
        at += length
        if last is not None and raw <= last:
            raise PatchFormatError("the index's tensor names are not unique and sorted")
        last = raw
        try:
            name = raw.decode()
        except UnicodeDecodeError as error:
            raise PatchFormatError("the index has a tensor name that is not UTF-8") from error
        if not is_tensor_name(name):
            raise PatchFormatError(f"the index has an unacceptable tensor name: {name[:80]!r}")
        yield name


def _dtype(name: str, code: int) -> DType:
    if code not in BY_CODE:
        raise UnsupportedPatchError(
            f"tensor {name!r} has dtype code {code}, which this patchc does not know; update it"
        )
    return BY_CODE[code]


def _shape(name: str, dtype: DType, dims: NDArray[np.unsignedinteger]) -> tuple[int, ...]:
    shape = tuple(int(size) for size in dims)
    words = math.prod(shape)
    if len(shape) > MAX_RANK or words > _MAX_WORDS or words * dtype.bits % 8:
        raise PatchFormatError(f"tensor {name!r} has an impossible shape")
    return shape


def _check_rows(
    tensor: TensorRecord,
    numbers: NDArray[np.unsignedinteger],
    entries: NDArray[np.unsignedinteger],
    chunk_bits: int,
) -> None:
    rows = tensor.chunks
    if not rows:
        return
    words = tensor.dtype.words(tensor.shape)
    own = numbers[rows.start : rows.stop].astype(np.int64)
    if np.any(np.diff(own) <= 0) or own[-1] << chunk_bits >= words:
        raise PatchFormatError(
            f"tensor {tensor.name!r}: its chunk numbers are out of order or range"
        )
    sizes = np.minimum(words - (own << chunk_bits), 1 << chunk_bits)
    counts = entries[rows.start : rows.stop]
    if np.any(counts == 0) or np.any(counts > sizes):
        raise PatchFormatError(
            f"tensor {tensor.name!r}: a chunk changes no word, or more than it has"
        )


def _offsets(lengths: NDArray[np.unsignedinteger], bodies_end: int) -> NDArray[np.uint64]:
    aligned = lengths.astype(np.uint64)
    aligned += (-aligned) % np.uint64(8)
    ends = np.uint64(PROLOGUE.size) + np.cumsum(aligned, dtype=np.uint64)
    end = int(ends[-1]) if len(ends) else PROLOGUE.size
    if end != bodies_end:
        raise PatchFormatError("the chunk bodies do not fill the space before the index exactly")
    return ends - aligned
