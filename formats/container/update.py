"""Columns of an update: tensors of one side, tensors that are resized, files (SPEC.md, 4.7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from patchc.errors import PatchFormatError
from patchc.formats.container.column_codec import ColumnReader, pack_numbers
from patchc.formats.container.file_changes import FileRecord, pack_files, read_files
from patchc.formats.container.layout import MAX_TENSORS
from patchc.formats.container.tensors import (
    Shape,
    TensorPair,
    TensorRecord,
    checked_pair,
    may_refer,
    may_resize,
    pack_shapes,
    pack_tensors,
    read_shapes,
    read_tensors,
)
from patchc.sides import OTHER, Side

_PLAIN, _RESIZED, _REMOVED = range(3)


def pack_update(tensors: Sequence[TensorRecord], files: Sequence[FileRecord]) -> bytes:
    """The columns that only a file with the feature ``update`` has; see :func:`pack_index`."""
    base = [tensor for tensor in tensors if tensor.only != "result"]
    added = [tensor for tensor in tensors if tensor.only == "result"]
    resized = [t.result_shape for t in base if t.result_shape is not None and not t.is_plain]
    return b"".join((
        bytes(_REMOVED if t.only else _PLAIN if t.is_plain else _RESIZED for t in base),
        pack_shapes(resized),
        pack_numbers([len(added)]),
        pack_tensors(added),
        pack_numbers(_references(tensors)),
        pack_files(files),
    ))  # fmt: skip


def _references(tensors: Sequence[TensorPair]) -> list[int]:
    """For each tensor of one side: 0 for zeros, or the number of its reference from 1 on."""
    places: dict[Side, dict[str, int]] = {
        side: {pair.name: place for place, pair in enumerate(_facing(tensors, side), start=1)}
        for side in OTHER
    }
    return [
        0 if tensor.reference is None else places[tensor.only][tensor.reference]
        for tensor in tensors
        if tensor.only
    ]


def _facing(pairs: Sequence[TensorPair], only: Side) -> list[TensorPair]:
    """What a tensor that only one side has may refer to: the other side's, sorted by name."""
    return sorted(
        (pair for pair in pairs if pair.only != only), key=lambda pair: pair.name.encode()
    )


def read_update(
    columns: ColumnReader, base: Sequence[TensorPair]
) -> tuple[list[TensorPair], list[int], list[FileRecord]]:
    """Read and check the columns.

    Args:
        columns: from which to read.
        base: the tensors of the base, as if both sides had them.

    Returns:
        All tensors, those of the base first; the chunk counts of the others; and the files.

    Raises:
        PatchFormatError: naming what is wrong, with the tensor where there is one.
        UnsupportedPatchError: an unknown dtype.
    """
    fates = columns.bytes_column(len(base)).tolist()
    if any(fate > _REMOVED for fate in fates):
        raise PatchFormatError("the index says of a tensor neither that it stays nor that it goes")
    shapes = iter(read_shapes(columns, fates.count(_RESIZED)))
    pairs = []
    for pair, fate in zip(base, fates, strict=True):
        if fate == _RESIZED:
            pairs.append(_resize(pair, next(shapes)))
        else:
            pairs.append(pair if fate == _PLAIN else replace(pair, result_shape=None))
    count = int(columns.numbers(1, 4)[0])
    if count > MAX_TENSORS:
        raise PatchFormatError(f"the index declares {count} added tensors, above the cap")
    added, counts = read_tensors(columns, count)
    there = {pair.name for pair in pairs if pair.only != "base"}
    for pair in added:
        if pair.name in there:
            raise PatchFormatError(f"tensor {pair.name!r} is added and is there already")
    pairs += [replace(pair, base_shape=None) for pair in added]
    return _with_references(columns, pairs), counts, read_files(columns)


def _resize(pair: TensorPair, shape: Shape) -> TensorPair:
    resized = checked_pair(replace(pair, result_shape=shape))
    if resized.is_plain:
        raise PatchFormatError(f"tensor {pair.name!r} is said to change its shape and does not")
    if not may_resize(resized.words_on("base"), resized.words_on("result")):
        raise PatchFormatError(f"tensor {pair.name!r} grows or shrinks by more than it may")
    return resized


def _with_references(columns: ColumnReader, pairs: Sequence[TensorPair]) -> list[TensorPair]:
    numbers = iter(columns.numbers(sum(pair.only is not None for pair in pairs), 4).tolist())
    facing = {side: _facing(pairs, side) for side in OTHER}
    found = list(pairs)
    for place, pair in enumerate(pairs):
        if pair.only and (number := next(numbers)):
            others = facing[pair.only]
            if number > len(others) or not may_refer(pair.dtype, others[number - 1].dtype):
                raise PatchFormatError(
                    f"tensor {pair.name!r} refers to a tensor that is not there or cannot be cast "
                    "to it"
                )
            found[place] = replace(pair, reference=others[number - 1].name)
    return found
