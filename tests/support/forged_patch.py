"""Patch files put together from parts, with a root digest that matches whatever the parts say."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from golden_patch import golden_bytes
from second_reader import Index, Update, read_index

from patchc.errors import PatchcError, PatchFormatError, UnsupportedPatchError
from patchc.formats import open_patch
from patchc.formats.container.layout import PROLOGUE, TRAILER, TRAILER_ROOT_OFFSET, UPDATE
from patchc.hashing import bodies_digest, root_digest


@dataclass(frozen=True)
class Parts:
    """The parts of a patch file; None for a size, or for stored bytes, means the true ones."""

    prologue: bytes
    bodies: bytes
    index: bytes
    metadata: bytes
    features: int = 0
    signature: int = 0
    index_size: int | None = None
    metadata_size: int | None = None
    index_offset: int | None = None
    stored_index: bytes | None = None
    stored_metadata: bytes | None = None
    tail: bytes = b""

    def but(self, **changes: Any) -> Parts:
        return replace(self, **changes)

    def with_index(self, offset: int, data: bytes) -> Parts:
        """The same with bytes of the expanded index overwritten."""
        return self.but(index=self.index[:offset] + data + self.index[offset + len(data) :])

    def with_columns(self, **columns: Any) -> Parts:
        """The same with other columns in the index (see :class:`second_reader.Index`)."""
        index = read_index(self.index, self.features == UPDATE)
        return self.but(index=pack_index(replace(index, **columns)))

    def with_update(self, **columns: Any) -> Parts:
        """The same with other update columns (see :class:`second_reader.Update`)."""
        update = read_index(self.index, True).update
        assert update is not None
        return self.with_columns(update=replace(update, **columns))

    def with_first_body(self, body: bytes, entries: int, words: int) -> Parts:
        """The same with another body for the first of two chunks, and digests that fit.

        ``entries`` and ``words`` are what the index then says of the first tensor.
        """
        index = read_index(self.index)
        rest = self.bodies[index.lengths[0] :]
        digests = [blake3(one).digest() for one in (body, rest)]
        pinned = words <= 1 << self.prologue[12]
        return self.but(bodies=body + rest).with_columns(
            lengths=[len(body), len(rest)],
            entries=[entries, 1],
            dims=[words, *index.dims[1:]],
            tensor_digests=index.tensor_digests if pinned else [bytes(8), *index.tensor_digests],
            bodies_digest=bodies_digest(b"".join(digests)),
            body_digests=[digest[:8] for digest in digests],
        )

    def assemble(self, level: int = 9) -> bytes:
        index = self.stored_index or zlib.compress(self.index, level)
        metadata = self.stored_metadata or zlib.compress(self.metadata, level)
        offset = len(self.prologue) + len(self.bodies)
        fields = [
            offset if self.index_offset is None else self.index_offset,
            len(index),
            len(self.index) if self.index_size is None else self.index_size,
            len(metadata),
            len(self.metadata) if self.metadata_size is None else self.metadata_size,
            self.features,
        ]
        trailer = TRAILER.pack(*fields, bytes(32), self.signature, b"\r\nPATCHC")
        head = trailer[:TRAILER_ROOT_OFFSET]
        root = root_digest((self.prologue, index, metadata, head))
        trailer = head + root + trailer[TRAILER_ROOT_OFFSET + 32 :]
        return self.prologue + self.bodies + index + metadata + trailer + self.tail


def pack_index(index: Index) -> bytes:
    """An index from its columns, whatever they hold."""
    masks = [
        bytes([len(name.encode())]) + name.encode() + struct.pack("<QQ", seed, threshold)
        for name, seed, threshold in index.masks
    ]
    columns = [
        struct.pack("<II", index.tensors, index.chunks),
        bytes([len(masks)]),
        *masks,
        *_table(index),
        numbers(index.skips),
        bytes(index.codecs),
        numbers(index.mask_rows) if index.masks else b"",
        numbers(index.entries),
        numbers(index.lengths),
        pack_update(index.update) if index.update else b"",
        index.base_digest,
        index.result_digest,
        index.bodies_digest,
        *index.files_digests,
        *index.tensor_digests,
        *index.body_digests,
        *index.base_digests,
        *index.result_digests,
        *(digest for digests in index.file_digests for digest in digests),
    ]
    return b"".join(columns)


def _table(table: Index | Update) -> list[bytes]:
    return [
        numbers(table.shared),
        numbers([len(rest) for rest in table.rests]),
        *table.rests,
        bytes(table.codes),
        bytes(table.ranks),
        numbers(table.dims),
        numbers(table.counts),
    ]


def pack_update(update: Update) -> bytes:
    """The update columns, whatever they hold."""
    columns = [
        bytes(update.fates),
        bytes(update.result_ranks),
        numbers(update.result_dims),
        numbers([update.added]),
        *_table(update),
        numbers(update.references),
        numbers([update.files]),
        numbers(update.file_shared),
        numbers([len(rest) for rest in update.file_rests]),
        *update.file_rests,
        bytes(update.roles),
        numbers(update.prefixes),
        numbers(update.suffixes),
        numbers(update.base_middles),
        numbers(update.result_middles),
        numbers(update.lengths),
    ]
    return b"".join(columns)


def numbers(values: Sequence[int]) -> bytes:
    """A column of numbers, as narrow as can be."""
    width = max(1, (max(values, default=0).bit_length() + 7) // 8)
    return bytes([width, *(value >> 8 * k & 255 for k in range(width) for value in values)])


def golden_parts() -> Parts:
    """The parts of the specification's worked example."""
    return parts_of(golden_bytes())


def parts_of(data: bytes) -> Parts:
    """The parts of a well-formed patch file."""
    offset, stored, _, metadata_stored, _, features, *_ = TRAILER.unpack(data[-TRAILER.size :])
    end = offset + stored
    return Parts(
        prologue=data[: PROLOGUE.size],
        bodies=data[PROLOGUE.size : offset],
        index=zlib.decompress(data[offset:end]),
        metadata=zlib.decompress(data[end : end + metadata_stored]),
        features=features,
    )


def write_anew(path: Path, data: bytes) -> Path:
    """Write a file, and return it.

    Some file systems wait for the disk where one that is there is written over, in each of a
    thousand examples.
    """
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return path


def read_all(path: Path, data: bytes) -> int:
    """Write a file, open it and decode every body; the number of changes found."""
    write_anew(path, data)
    with open_patch(path) as patch:
        return sum(
            len(patch.read_changes(tensor, patch.index.chunk(row))[0])
            for tensor in patch.index.tensors.values()
            for row in tensor.chunks
        )


Reader = Callable[[Path, bytes], int]
"""Writes a file and reads all of it; the number of entries found."""


def refuse(
    tmp_path: Path,
    parts: Parts,
    match: str,
    error: type[PatchcError] = PatchFormatError,
    read: Reader = read_all,
) -> None:
    """Check that the file is refused with a message that names it."""
    path = tmp_path / "x.patchc"
    with pytest.raises(error, match=match) as caught:
        read(path, parts.assemble())
    assert str(path) in str(caught.value)


def read_or_refuse(path: Path, parts: Parts, limit: int, read: Reader = read_all) -> None:
    """Check that the file is read or refused within ``limit`` bytes of memory."""
    tracemalloc.start()
    try:
        read(path, parts.assemble())
    except (PatchFormatError, UnsupportedPatchError):
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < limit
