"""Patch files of a few kilobytes that ask their reader for gigabytes or minutes."""

from __future__ import annotations

import string
import struct
import zlib

import numpy as np
from blake3 import blake3
from forged_patch import Parts, golden_parts
from numpy.typing import ArrayLike

from patchc.formats.container.layout import UPDATE

GOLDEN = golden_parts().but(bodies=b"")
DIGESTS = bytes(96)
LETTERS = np.frombuffer(
    f"{string.digits}{string.ascii_uppercase}_{string.ascii_lowercase}~".encode(), np.uint8
)
"""In the order of their bytes."""
MOST_TENSORS = 1 << 18


def column(values: ArrayLike, width: int) -> bytes:
    """A column of numbers of a given width."""
    planes = np.asarray(values, "<u8").view("u1").reshape(-1, 8)[:, :width]
    return bytes([width]) + planes.T.tobytes()


def all_of(value: int, count: int, width: int = 1) -> bytes:
    """A column of one number, many times."""
    return column(np.full(count, value), width)


def _short_names(count: int) -> bytes:
    """Names of three letters that count in base 64; each shares what it can."""
    numbers = np.arange(count)
    digits = np.stack([numbers >> 12, numbers >> 6 & 63, numbers & 63], axis=1)
    changed = np.diff(digits, axis=0, prepend=-1) != 0
    shared = np.argmax(changed, axis=1)
    rests = LETTERS[digits[np.arange(3) >= shared[:, None]]]
    return column(shared, 1) + column(3 - shared, 1) + rests.tobytes()


def _table(names: bytes, count: int, shapes: bytes, counts: bytes) -> bytes:
    """A table of U8 tensors."""
    return names + b"\x02" * count + shapes + counts


def zeros() -> Parts:
    """An index that expands to as many zeros as an index may have."""
    packer, size = zlib.compressobj(9), 1 << 28
    start = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = struct.pack(">I", (size % 65521) << 16 | 1)
    stored = start + start[2:] * (size // (1 << 20) - 1) + packer.flush()[:-4] + checksum
    return GOLDEN.but(stored_index=stored, index_size=size)


def many_shapes(count: int = MOST_TENSORS) -> Parts:
    """Tensors without words, of 16 dimensions, on both sides and as many again on one."""
    shape = [0, *[300] * 15]
    shapes = b"\x10" * count + column(np.tile(shape, count), 2)
    table = _table(_short_names(count), count, shapes, all_of(0, count))
    update = b"\x02" * count + b"" + b"\x01" + column([count], 4) + table
    update += all_of(0, 2 * count) + column([0], 1) + b"\x01\x01" + b"\x01" * 5
    index = struct.pack("<II", count, 0) + b"\0" + table + b"\x01\x01\x01" + update
    return GOLDEN.but(index=index + DIGESTS + bytes(64), features=UPDATE)


def long_names(count: int = 1 << 14) -> Parts:
    """Names of 4096 bytes that share all but their last three."""
    shared = np.full(count, 4093)
    columns = column(shared * (np.arange(count) > 0), 2)
    own = LETTERS[np.stack([np.arange(count) >> k & 63 for k in (12, 6, 0)], axis=1)].tobytes()
    columns += column(3 + (shared * (np.arange(count) == 0)), 2) + b"x" * 4093 + own
    table = _table(columns, count, b"\x01" * count + all_of(0, count), all_of(0, count))
    head = struct.pack("<II", count, 0) + b"\0"
    return GOLDEN.but(index=head + table + b"\x01\x01\x01" + DIGESTS)


def many_chunks(tensors: int, each: int, length: int = 1) -> Parts:
    """Tensors of chunks that say of themselves that they change one word, and have equal bodies."""
    chunks = tensors * each
    shapes = b"\x01" * tensors + all_of(each << 12, tensors, 8)
    table = _table(_short_names(tensors), tensors, shapes, all_of(each, tensors, 3))
    columns = all_of(0, chunks) + b"\x03" * chunks + all_of(1, chunks) + all_of(length, chunks)
    index = struct.pack("<II", tensors, chunks) + b"\0" + table + columns + DIGESTS
    digests = np.frombuffer(blake3(bytes(length)).digest()[:8] * chunks).tobytes()
    return GOLDEN.but(index=index + digests + bytes(16 * chunks), bodies=bytes(length * chunks))


def metadata_of(piece: bytes, size: int = 8 << 20) -> Parts:
    """Metadata with a list of one value, many times."""
    start, end = b'{"a":[', b"]}"
    count = (size - len(start) - len(end) + 1) // (len(piece) + 1)
    return golden_parts().but(metadata=start + b",".join([piece] * count) + end)


def one_file(body: bytes, size: int) -> Parts:
    """An update that adds a file ``a`` of so many bytes, and changes nothing else."""
    files = column([1], 1) + all_of(0, 1) + all_of(1, 1) + b"a" + b"\x02"
    files += column([0], 4) * 3 + column([size], 4) + column([len(body)], 4)
    update = b"\x01" + column([0], 1) + b"\x01\x01\x01\x01" + b"\x01" + files
    index = struct.pack("<II", 0, 0) + b"\0\x01\x01\x01\x01\x01\x01\x01" + update
    digests = blake3(body).digest()[:8] + bytes(16)
    return GOLDEN.but(index=index + DIGESTS + bytes(64) + digests, bodies=body, features=UPDATE)
