"""Files that a patch changes beside the words of tensors: side files, and headers of safetensors.

SPEC.md, section 4.8. A file's change goes both ways: it leaves out what both contents share at
their start and at their end, and stores the middle of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from patchc.errors import PatchFormatError, UnsupportedInputError
from patchc.formats.container.bodies import NO_DIGEST, BodyRecord
from patchc.formats.container.column_codec import ColumnReader, pack_names, pack_numbers
from patchc.formats.container.expansion import compress
from patchc.hashing import short
from patchc.sides import Side

MAX_FILES = 4096
MAX_FILE = 1 << 26
"""Bytes of one file, whole."""

MAX_FILES_STORED = 1 << 27
"""Stored bytes of all files, both sides together and before compression."""

MAX_FILE_NAME = 1024
_PIECE = 1 << 20
_MAX_PART = 255
_MAX_PARTS = 16
_IN_BASE, _IN_RESULT, _HEADER = 1, 2, 4
_SIZES = ("prefix", "suffix", "base_middle", "result_middle", "length")
_SHARD_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class FileRecord(BodyRecord):
    """A file that changes; sizes are in bytes.

    Attributes:
        name: path below the model's folder, with ``/``.
        is_header: whether it is only the header of a safetensors file, its bytes before tensors.
        in_base, in_result: which sides have it; at least one.
        prefix, suffix: sizes of the start and the end that both sides share.
        base_middle, result_middle: sizes of what lies between, which the body stores.
    """

    name: str
    is_header: bool
    in_base: bool
    in_result: bool
    prefix: int
    suffix: int
    base_middle: int
    result_middle: int

    def on(self, side: Side) -> bool:
        """Whether a side has the file."""
        return self.in_base if side == "base" else self.in_result

    def size_on(self, side: Side) -> int:
        """Bytes of the file on a side, 0 where there is none."""
        middle = self.base_middle if side == "base" else self.result_middle
        return self.prefix + self.suffix + middle if self.on(side) else 0


@dataclass(frozen=True)
class EncodedFile:
    """A file's change, ready to be written; digests are full, None on a side without the file."""

    record: FileRecord
    body: bytes
    digests: tuple[bytes, bytes | None, bytes | None]

    def digest_on(self, side: Side) -> bytes | None:
        """Digest of the file's content on a side."""
        return self.digests[1 if side == "base" else 2]


def encode_file(
    name: str, base: bytes | None, result: bytes | None, is_header: bool
) -> EncodedFile:
    """Code the change of a file; None for a content means that there is no file on that side.

    Raises:
        UnsupportedInputError: the name or the size is above the format's caps.
    """
    if not is_file_name(name, is_header):
        raise UnsupportedInputError(f"file name {name[:80]!r} cannot stand in a patch; rename it")
    largest = max(len(base or b""), len(result or b""))
    if largest > MAX_FILE:
        raise UnsupportedInputError(
            f"file {name!r} differs and has {largest:,} bytes, more than the {MAX_FILE:,} that a "
            "patch carries of a file; move it elsewhere, or give --weights-only"
        )
    prefix = suffix = 0
    if base is not None and result is not None:
        left, right = np.frombuffer(base, np.uint8), np.frombuffer(result, np.uint8)
        prefix = _shared(left, right)
        suffix = _shared(left[prefix:][::-1], right[prefix:][::-1])
    contents = (memoryview(base or b""), memoryview(result or b""))
    middles = [content[prefix : len(content) - suffix] for content in contents]
    body = compress("body", middles)
    base_digest = None if base is None else blake3(base).digest()
    result_digest = None if result is None else blake3(result).digest()
    body_digest = blake3(body).digest()
    record = FileRecord(
        name=name,
        is_header=is_header,
        in_base=base is not None,
        in_result=result is not None,
        prefix=prefix,
        suffix=suffix,
        base_middle=len(middles[0]),
        result_middle=len(middles[1]),
        length=len(body),
        body_digest=short(body_digest),
        base_digest=short(base_digest or NO_DIGEST),
        result_digest=short(result_digest or NO_DIGEST),
    )
    return EncodedFile(record, body, (body_digest, base_digest, result_digest))


def _shared(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> int:
    """How many bytes two contents share at their start."""
    count = min(len(left), len(right))
    for at in range(0, count, _PIECE):
        piece = slice(at, min(at + _PIECE, count))
        differing = np.flatnonzero(left[piece] != right[piece])
        if len(differing):
            return at + int(differing[0])
    return count


def join_middle(file: FileRecord, middles: bytes, source: bytes | None, target: Side) -> bytes:
    """The content on side ``target``, which has the file, from the content on the other side.

    ``middles`` are the base's and the result's, joined. The caller checks the digest.
    """
    cut = file.base_middle
    middle = middles[:cut] if target == "base" else middles[cut:]
    if source is None or not (file.in_base and file.in_result):
        return middle
    return source[: file.prefix] + middle + source[len(source) - file.suffix :]


def pack_files(files: Sequence[FileRecord]) -> bytes:
    """The table's columns; files are sorted by the bytes of their names."""
    roles = [
        _IN_BASE * file.in_base | _IN_RESULT * file.in_result | _HEADER * file.is_header
        for file in files
    ]
    numbers = (pack_numbers([getattr(file, name) for file in files]) for name in _SIZES)
    names = pack_names([file.name for file in files])
    return pack_numbers([len(files)]) + names + bytes(roles) + b"".join(numbers)


def read_files(columns: ColumnReader) -> list[FileRecord]:
    """Read and check the table; digests and offsets are not in it.

    Raises:
        PatchFormatError: a field is out of range, or names clash.
    """
    count = int(columns.numbers(1, 4)[0])
    if count > MAX_FILES:
        raise PatchFormatError(f"the index declares {count} files, above the cap")
    names = columns.names(count, MAX_FILE_NAME * MAX_FILES, "file")
    roles = columns.bytes_column(count).tolist()
    sizes = [columns.numbers(count, 4).tolist() for _ in _SIZES]
    files = []
    for name, role, *own in zip(names, roles, *sizes, strict=True):
        sides = bool(role & _IN_BASE), bool(role & _IN_RESULT)
        fields = dict(zip(_SIZES, own, strict=True))
        file = FileRecord(name, bool(role & _HEADER), *sides, **fields)
        _check_file(file, role)
        files.append(file)
    fault = find_fault(files)
    if fault:
        raise PatchFormatError(f"the index {fault}")
    return files


def find_fault(files: Sequence[FileRecord]) -> str | None:
    """What is wrong with these files together in a patch; None where nothing is."""
    if len(files) > MAX_FILES:
        return f"has {len(files)} files, above the cap"
    if sum(file.base_middle + file.result_middle for file in files) > MAX_FILES_STORED:
        return "has files above their size cap"
    names = {file.name for file in files}
    parents = {name[:at] for name in names for at, char in enumerate(name) if char == "/"}
    for name in sorted(parents & names):
        return f"has {name!r} as a file and as a folder"
    return None


def _check_file(file: FileRecord, role: int) -> None:
    shared = file.prefix or file.suffix
    base_fits = file.in_base or not (shared or file.base_middle)
    result_fits = file.in_result or not (shared or file.result_middle)
    somewhere = file.in_base or file.in_result
    if not somewhere or role > 7 or not base_fits or not result_fits:
        raise PatchFormatError(f"file {file.name[:80]!r}: its record contradicts itself")
    if not is_file_name(file.name, file.is_header):
        raise PatchFormatError(f"the index has an unacceptable file name: {file.name[:80]!r}")
    if max(file.size_on("base"), file.size_on("result")) > MAX_FILE:
        raise PatchFormatError(f"file {file.name[:80]!r} is above the size cap")


def is_file_name(name: str, is_header: bool) -> bool:
    """Whether a file of this name may be written below a model's folder.

    A path of plain names, without ``.``, ``..``, ``\\`` or anything unprintable. A header belongs
    to a safetensors file in the folder itself, and nothing else may be called so.
    """
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or len(name.encode()) > MAX_FILE_NAME:
        return False
    if len(parts) > _MAX_PARTS or any(len(part.encode()) > _MAX_PART for part in parts):
        return False
    if not all(part.strip(". ") for part in parts):
        return False
    return name.endswith(_SHARD_SUFFIX) == is_header and not (is_header and len(parts) > 1)
