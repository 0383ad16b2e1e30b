"""What an update changes beside words: tensors of one side, other shapes, files (SPEC.md, 4.7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from patchc.errors import PatchFormatError
from patchc.formats.container.column_codec import ColumnReader, pack_numbers
from patchc.formats.container.file_changes import FileRecord, pack_files, read_files
from patchc.formats.container.layout import MAX_TENSORS
from patchc.formats.container.tensors import (
    TensorPair,
    TensorRecord,
    may_refer,
    may_resize,
    pack_shapes,
    pack_tensors,
    read_dimensions,
    read_tensors,
    split_shapes,
)
from patchc.sides import OTHER, Side

_KEPT, _RESIZED, _REMOVED = range(3)


def pack_update(tensors: Sequence[TensorRecord], files: Sequence[FileRecord]) -> bytes:
    """The columns that only a file with the feature ``update`` has; see :func:`pack_index`."""
    base = [tensor for tensor in tensors if tensor.only != "result"]
    added = [tensor for tensor in tensors if tensor.only == "result"]
    resized = [t.result_shape for t in base if t.result_shape is not None and not t.is_plain]
    return b"".join((
        bytes(map(_fate, base)),
        pack_shapes(resized),
        pack_numbers([len(added)]),
        pack_tensors(added),
        pack_numbers(_references(tensors)),
        pack_files(files),
    ))  # fmt: skip


def _fate(tensor: TensorPair) -> int:
    if tensor.only:
        return _REMOVED
    return _KEPT if tensor.is_plain else _RESIZED


def _references(tensors: Sequence[TensorPair]) -> list[int]:
    """Of each tensor of one side: 0 for zeros, or 1 and the number of its reference."""
    places: dict[Side, dict[str, int]] = {
        side: {row.name: place for place, row in enumerate(_facing(tensors, side), start=1)}
        for side in OTHER
    }
    return [
        0 if tensor.reference is None else places[tensor.only][tensor.reference]
        for tensor in tensors
        if tensor.only
    ]


def _facing(rows: Sequence[TensorPair], only: Side) -> list[TensorPair]:
    """What a tensor that only one side has may refer to: the other side's, sorted by name."""
    return sorted((row for row in rows if row.only != only), key=lambda row: row.name.encode())


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
    fates = columns.bytes_column(len(base))
    if np.any(fates > _REMOVED):
        raise PatchFormatError("the index says of a tensor neither that it stays nor that it goes")
    resized = [row for row, fate in zip(base, fates, strict=True) if fate == _RESIZED]
    ranks, dims = read_dimensions(columns, len(resized))
    names, dtypes = [row.name for row in resized], [row.dtype for row in resized]
    shapes = iter(split_shapes(ranks, dims, names, dtypes))
    rows = []
    for row, fate in zip(base, fates, strict=True):
        shape = None if fate == _REMOVED else row.base_shape if fate == _KEPT else next(shapes)
        if fate == _RESIZED and shape == row.base_shape:
            raise PatchFormatError(f"tensor {row.name!r} is said to change its shape and does not")
        resized_row = replace(row, result_shape=shape)
        sizes = (resized_row.words_on("base"), resized_row.words_on("result"))
        if fate == _RESIZED and not may_resize(*sizes):
            raise PatchFormatError(f"tensor {row.name!r} grows or shrinks by more than it may")
        rows.append(resized_row)
    count = int(columns.numbers(1, 4)[0])
    if count > MAX_TENSORS:
        raise PatchFormatError(f"the index declares {count} added tensors, above the cap")
    added, counts = read_tensors(columns, count)
    rows += [replace(row, base_shape=None) for row in added]
    _check_names(rows)
    rows = _with_references(columns, rows)
    return rows, counts, read_files(columns)


def _check_names(rows: Sequence[TensorPair]) -> None:
    seen: set[str] = set()
    for row in rows:
        if row.only != "base" and row.name in seen:
            raise PatchFormatError(f"tensor {row.name!r} is added and is there already")
        if row.only != "base":
            seen.add(row.name)


def _with_references(columns: ColumnReader, rows: Sequence[TensorPair]) -> list[TensorPair]:
    numbers = iter(columns.numbers(sum(row.only is not None for row in rows), 4).tolist())
    facing = {side: _facing(rows, side) for side in OTHER}
    found = []
    for row in rows:
        number = next(numbers) if row.only else 0
        if not row.only or not number:
            found.append(row)
            continue
        others = facing[row.only]
        if number > len(others) or not may_refer(row.dtype, others[number - 1].dtype):
            raise PatchFormatError(
                f"tensor {row.name!r} refers to a tensor that is not there or cannot be cast to it"
            )
        found.append(replace(row, reference=others[number - 1].name))
    return found
