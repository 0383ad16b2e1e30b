"""The tensors of a patch: which of its two sides have them, and in which shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import BY_CODE, MERGEABLE, DType
from patchc.errors import PatchFormatError, UnsupportedPatchError
from patchc.formats.container.column_codec import ColumnReader, pack_names, pack_numbers
from patchc.formats.container.layout import MAX_NAMES, MAX_RANK, is_tensor_name
from patchc.sides import Side

Shape = tuple[int, ...]

_MAX_WORDS = 1 << 62
_MOST_GROWTH = 16
_ANY_GROWTH = 1 << 20


@dataclass(frozen=True, slots=True)
class TensorPair:
    """A tensor with its two sides: the base has it, or the result, or both with one dtype.

    Its chunks and steps cover the words of the longer side. A shorter side is continued by zeros. A
    side without the tensor has the words of ``reference``, another tensor of that side, cast to the
    dtype (SPEC.md, section 4.7).

    Attributes:
        base_shape, result_shape: None where that side does not have the tensor; not both.
        reference: only where a side does not have it; None for zeros.
    """

    name: str
    dtype: DType
    base_shape: Shape | None
    result_shape: Shape | None
    reference: str | None = None

    @property
    def shape(self) -> Shape:
        """Its shape in the base, or in the result where only that has it."""
        return self.base_shape if self.base_shape is not None else self.result_shape or ()

    @property
    def words(self) -> int:
        """Words of the longer side."""
        if self.is_plain:
            return self.words_on("base")
        return max(self.words_on("base"), self.words_on("result"))

    @property
    def nbytes(self) -> int:
        """Bytes of the longer side."""
        return self.words * self.dtype.word_bytes

    @property
    def only(self) -> Side | None:
        """The side that alone has it; None where both do."""
        if self.base_shape is None:
            return "result"
        return "base" if self.result_shape is None else None

    @property
    def is_plain(self) -> bool:
        """Whether both sides have it in the same shape."""
        return self.base_shape == self.result_shape

    def shape_on(self, side: Side) -> Shape | None:
        """Its shape on a side, None where that does not have it."""
        return self.base_shape if side == "base" else self.result_shape

    def words_on(self, side: Side) -> int:
        """Words that a side has, 0 where it does not have the tensor."""
        shape = self.shape_on(side)
        return 0 if shape is None else self.dtype.words(shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorRecord(TensorPair):
    """A tensor in the index: its digest, and which of its chunks change.

    Attributes:
        digest: short digest of the tensor in the base, or in the result where only that has it;
            None where all of its chunks have records, whose digests pin it.
        chunks: places of its chunks' records in the index.
    """

    digest: bytes | None
    chunks: range

    @classmethod
    def of(cls, pair: TensorPair, digest: bytes | None, chunks: range) -> TensorRecord:
        """The record of a tensor."""
        shapes = pair.base_shape, pair.result_shape
        return cls(pair.name, pair.dtype, *shapes, pair.reference, digest=digest, chunks=chunks)


def may_resize(words: int, other: int) -> bool:
    """Whether one tensor may have ``words`` words on one side and ``other`` on the other.

    Without a limit, a few bytes of index could make a reader of a small model read zeros for years.
    Beyond it, a patch has two tensors, of one side each.
    """
    return max(words, other) <= _MOST_GROWTH * min(words, other) + _ANY_GROWTH


def may_refer(dtype: DType, reference: DType) -> bool:
    """Whether words of one dtype can be cast to another: the same, or both small floats."""
    return dtype == reference or {dtype.name, reference.name} <= set(MERGEABLE)


def pack_tensors(tensors: Sequence[TensorRecord]) -> bytes:
    """The columns of a table of tensors: name, dtype, shape and number of changed chunks."""
    return b"".join((
        pack_names([tensor.name for tensor in tensors]),
        bytes(tensor.dtype.code for tensor in tensors),
        pack_shapes([tensor.shape for tensor in tensors]),
        pack_numbers([len(tensor.chunks) for tensor in tensors]),
    ))  # fmt: skip


def pack_shapes(shapes: Sequence[Shape]) -> bytes:
    """The columns of ranks and dimensions."""
    ranks = bytes(len(shape) for shape in shapes)
    return ranks + pack_numbers([size for shape in shapes for size in shape])


def read_tensors(columns: ColumnReader, count: int) -> tuple[list[TensorPair], list[int]]:
    """Read and check a table: tensors that both sides have, and how many of their chunks change.

    Raises:
        PatchFormatError: naming what is wrong, with the tensor where there is one.
        UnsupportedPatchError: an unknown dtype.
    """
    names = columns.names(count, MAX_NAMES, "tensor")
    for name in names:
        if not is_tensor_name(name):
            raise PatchFormatError(f"the index has an unacceptable tensor name: {name[:80]!r}")
    codes = columns.bytes_column(count).tolist()
    shapes = read_shapes(columns, count)
    counts = columns.numbers(count, 4).tolist()
    for name, code in zip(names, codes, strict=True):
        if code not in BY_CODE:
            raise UnsupportedPatchError(
                f"tensor {name!r} has dtype code {code}, which this patchc does not know; update it"
            )
    dtypes = [BY_CODE[code] for code in codes]
    pairs = map(TensorPair, names, dtypes, shapes, shapes)
    return [checked_pair(pair) for pair in pairs], counts


def read_shapes(columns: ColumnReader, count: int) -> list[Shape]:
    """Read the shapes of ``count`` tensors.

    Raises:
        PatchFormatError: a tensor has more dimensions than there can be.
    """
    ranks: NDArray[np.uint8] = columns.bytes_column(count)
    if np.any(ranks > MAX_RANK):
        raise PatchFormatError("the index has a tensor with too many dimensions")
    column = columns.numbers(int(ranks.sum(dtype=np.int64)), 8)
    values, places = np.unique(column, return_inverse=True)
    sizes = iter(values.astype(object)[places])  # equal numbers are one object
    return [tuple(islice(sizes, rank)) for rank in ranks.tolist()]


def checked_pair(pair: TensorPair) -> TensorPair:
    """Return a tensor whose shape in the result was read.

    Raises:
        PatchFormatError: it has more words than there can be, or not whole bytes.
    """
    words = math.prod(pair.result_shape or ())
    if words > _MAX_WORDS or words * pair.dtype.bits % 8:
        raise PatchFormatError(f"tensor {pair.name!r} has an impossible shape")
    return pair
