"""One safetensors file: its header, checked, and where each tensor's bytes lie."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError, safe_open

from patchc.dtypes import BY_NAME, DType
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

    The reference implementation checks the file (overlaps, holes, sizes, limits). The offsets are
    then taken from the same header.

    Args:
        path: the file.
        name: the shard's name, if the file does not have it yet.

    Raises:
        CheckpointError: the file is missing, unreadable, truncated or malformed.
        UnsupportedInputError: it holds a dtype that this version does not know.
    """
    header_bytes, header, state = _read_header(path)
    metadata = header.pop("__metadata__", None) or {}
    data_start = 8 + header_bytes
    shard = name or path.name
    tensors = []
    for tensor, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype = BY_NAME.get(entry["dtype"])
        if dtype is None:
            raise UnsupportedInputError(
                f"{path}: tensor {tensor!r} has dtype {entry['dtype']}, which this version of "
                "patchc does not know; update patchc"
            )
        offset = data_start + entry["data_offsets"][0]
        tensors.append(TensorInfo(tensor, dtype, tuple(entry["shape"]), shard, offset))
    size, stamp = state.st_size, stamp_of(state)
    return Shard(shard, path, size, stamp, data_start, metadata, tuple(tensors))


def _read_header(path: Path) -> tuple[int, dict[str, Any], os.stat_result]:
    """Read a checked header: its bytes, its content, and the status of the file before that."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:  # safe_open calls all of them missing
            start = file.read(START_BYTES)
        with safe_open(path, framework="numpy"):
            pass
        with os.fdopen(open_regular(path), "rb") as file:
            state = os.fstat(file.fileno())
            header_bytes = int.from_bytes(file.read(8), "little")
            return header_bytes, json.loads(file.read(header_bytes)), state
    except FileNotFoundError as error:
        if error.errno is None:  # from safe_open, after the file was opened here
            raise CheckpointError(
                f"{path}: could not be opened twice; run again when nothing changes it"
            ) from error
        message = f"{path}: no such file; fetch this shard again"
        raise MissingCheckpointError(message, str(path)) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {reason(error)}") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file{_what_then(path, start, error)}"
        ) from error


def _what_then(path: Path, start: bytes, error: Exception) -> str:
    if path.suffix == ".json":
        return "; name the model's folder"
    if start[8:9] != b"{" and (kind := other_kind(start, ORDER)):
        return f": it is {kind}"
    return f" ({error}); was the download complete? If not, fetch it again"


def size_by_header(header: bytes) -> int:
    """Compute the size of a safetensors file from its header, which is not checked further.

    Raises:
        CheckpointError: the bytes are not a header.
    """
    try:
        entries = json.loads(header[8:])
        entries.pop("__metadata__", None)
        ends = [int(entry["data_offsets"][1]) for entry in entries.values()]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError("it is not the header of a safetensors file") from error
    return len(header) + max(ends, default=0)
