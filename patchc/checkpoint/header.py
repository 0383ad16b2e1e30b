"""One safetensors file: its header, checked, and where each tensor's bytes lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from patchc.checkpoint.header_text import MOST_HEADER, parse_header
from patchc.dtypes import DType
from patchc.errors import CheckpointError, MissingCheckpointError, UnsupportedInputError
from patchc.other_kinds import ORDER, START_BYTES, other_kind
from patchc.regular_file import open_regular
from patchc.system_errors import reason

Stamp: TypeAlias = tuple[int, int, int, int]
"""What tells a file that was replaced or written to from what it was."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of a checkpoint: ``offset`` is its first byte in the file ``shard``."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    shard: str
    offset: int

    @property
    def words(self) -> int:
        """Number of machine words (see :mod:`patchc.dtypes`)."""
        return self.dtype.words(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.words * self.dtype.word_bytes

    def offset_of(self, word: int) -> int:
        """Return the offset of a word in the file, in bytes."""
        return self.offset + word * self.dtype.word_bytes


@dataclass(frozen=True)
class Shard:
    """A safetensors file: ``data_start`` bytes of header, then the tensors in file order.

    ``stamp`` is that of the file when its header was read.
    """

    name: str
    path: Path
    size: int
    stamp: Stamp
    data_start: int
    metadata: dict[str, str]
    tensors: tuple[TensorInfo, ...]


def stamp_of(state: os.stat_result) -> Stamp:
    """The stamp of a file with this status."""
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def read_shard(path: Path, name: str | None = None) -> Shard:
    """Read and check a file's header, without reading tensors.

    Args:
        path: the file.
        name: the shard's name, if the file does not have it yet.

    Raises:
        CheckpointError: the file is missing, unreadable, truncated or malformed.
        UnsupportedInputError: it holds an unknown dtype, or too many tensors.
    """
    text, state = _read_header(path)
    data_start, name = 8 + len(text), name or path.name
    try:
        metadata, entries = parse_header(text, state.st_size - data_start)
    except UnsupportedInputError as error:
        raise UnsupportedInputError(f"{path}: {error}") from error
    except CheckpointError as error:
        start = len(text).to_bytes(8, "little") + text[:START_BYTES]
        raise _unreadable(path, start, str(error)) from error
    tensors = tuple(
        TensorInfo(tensor, entry.dtype, entry.shape, name, data_start + entry.start)
        for tensor, entry in entries.items()
    )
    return Shard(name, path, state.st_size, stamp_of(state), data_start, metadata, tensors)


def _read_header(path: Path) -> tuple[bytes, os.stat_result]:
    """Read a header's text, and the status of its file before that."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            state = os.fstat(file.fileno())
            start = file.read(START_BYTES)
            size = int.from_bytes(start[:8], "little")
            if len(start) < 8 or size > state.st_size - 8:
                raise _unreadable(path, start, "it ends before its header does")
            if size > MOST_HEADER:
                raise _unreadable(path, start, f"a header of {size:,} bytes is above the cap")
            file.seek(8)
            text = file.read(size)
            if len(text) < size:
                raise _unreadable(path, start, "it ends before its header does")
            return text, state
    except FileNotFoundError as error:
        message = f"{path}: no such file; fetch this shard again"
        raise MissingCheckpointError(message, str(path)) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {reason(error)}") from error


def _unreadable(path: Path, start: bytes, why: str) -> CheckpointError:
    then = _what_then(path, start, why)
    return CheckpointError(f"{path}: not a readable safetensors file{then}")


def _what_then(path: Path, start: bytes, why: str) -> str:
    if path.suffix == ".json":
        return "; name the model's folder"
    if start[8:9] != b"{" and (kind := other_kind(start, ORDER)):
        return f": it is {kind}"
    return f" ({why}); was the download complete? If not, fetch it again"


def size_by_header(header: bytes) -> int:
    """Compute the size of a safetensors file from its header.

    Raises:
        CheckpointError: the bytes are not a header.
        UnsupportedInputError: it lists an unknown dtype, or too many tensors.
    """
    _, entries = parse_header(header[8:])
    return len(header) + max((entry.end for entry in entries.values()), default=0)
