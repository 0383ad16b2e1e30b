"""One safetensors file: its header, checked, and where each tensor's bytes lie."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from patchc.dtypes import BY_NAME, DType
from patchc.errors import CheckpointError, UnsupportedInputError


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


@dataclass(frozen=True)
class Shard:
    """A safetensors file: ``data_start`` bytes of header, then the tensors in file order."""

    name: str
    path: Path
    size: int
    data_start: int
    metadata: dict[str, str]
    tensors: tuple[TensorInfo, ...]


def read_shard(path: Path, name: str | None = None) -> Shard:
    """Read and check a file's header; tensor data is not touched.

    ``name`` stands for the file's own, where that is not yet its last.

    The reference implementation judges the file (overlaps, holes, sizes, caps); the offsets are
    then taken from the same header.

    Raises:
        CheckpointError: the file is missing, unreadable, truncated or malformed.
        UnsupportedInputError: it holds a dtype that this version does not know.
    """
    _validate(path)
    try:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(header_bytes))
            size = file.seek(0, 2)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot read the safetensors header: {error}") from error
    metadata = header.pop("__metadata__", None) or {}
    data_start = 8 + header_bytes
    by_offset = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    shard = name or path.name
    tensors = tuple(_tensor(path, shard, key, entry, data_start) for key, entry in by_offset)
    return Shard(shard, path, size, data_start, metadata, tensors)


def size_by_header(header: bytes) -> int:
    """The size of a safetensors file that starts with ``header``, which is not judged otherwise.

    Raises:
        CheckpointError: it is no header.
    """
    try:
        entries = json.loads(header[8:])
        entries.pop("__metadata__", None)
        ends = [int(entry["data_offsets"][1]) for entry in entries.values()]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError("it is no header of a safetensors file") from error
    return len(header) + max(ends, default=0)


def _validate(path: Path) -> None:
    try:
        with safe_open(path, framework="numpy"):
            pass
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; is a shard missing?") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); was the download complete?"
        ) from error


def _tensor(
    path: Path, shard: str, name: str, entry: dict[str, Any], data_start: int
) -> TensorInfo:
    dtype = BY_NAME.get(str(entry["dtype"]))
    if dtype is None:
        raise UnsupportedInputError(
            f"{path}: tensor {name!r} has dtype {entry['dtype']}, which this version of patchc "
            "does not know; update patchc"
        )
    offset = data_start + entry["data_offsets"][0]
    return TensorInfo(name, dtype, tuple(entry["shape"]), shard, offset)
