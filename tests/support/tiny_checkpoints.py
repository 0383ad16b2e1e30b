"""Builders of tiny checkpoints, written by hand so that every dtype and layout can be made."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

_NAMES = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(ml_dtypes.float8_e4m3fn): "F8_E4M3",
    np.dtype(ml_dtypes.float8_e5m2): "F8_E5M2",
    np.dtype(np.float64): "F64",
    np.dtype(np.int32): "I32",
    np.dtype(np.uint8): "U8",
}
NUMPY = {name: dtype for dtype, name in _NAMES.items()}


@dataclass(frozen=True)
class Raw:
    """A tensor as a safetensors file stores it."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


Tensors = Mapping[str, "Raw | NDArray"]


@dataclass(frozen=True)
class PatchedModel:
    """A base in two shards, the tuned model, and the patch from one to the other."""

    base: Path
    tuned: Path
    patch: Path
    base_tensors: Tensors
    tuned_tensors: Tensors


def raw(tensor: Raw | NDArray) -> Raw:
    """An array as its safetensors dtype, shape and bytes."""
    if isinstance(tensor, Raw):
        return tensor
    return Raw(_NAMES[tensor.dtype], tensor.shape, tensor.tobytes())


def file_bytes(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file, its tensors in the order given."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    body, at = [], 0
    for name, tensor in tensors.items():
        stored = raw(tensor)
        end = at + len(stored.data)
        header[name] = {
            "dtype": stored.dtype,
            "shape": list(stored.shape),
            "data_offsets": [at, end],
        }
        body.append(stored.data)
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(body)


def write_file(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> Path:
    """Write a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file_bytes(tensors, metadata))
    return path


def write_model(
    folder: Path,
    tensors: Tensors,
    shards: int = 1,
    stem: str = "model",
    side_files: Mapping[str, str] | None = None,
    form: str = "pt",
) -> Path:
    """Write a checkpoint folder: one file, or shards dealt out in turn with an index."""
    metadata = {"format": form}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (side_files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    if shards == 1:
        write_file(folder / f"{stem}.safetensors", tensors, metadata)
        return folder
    files = [f"{stem}-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    places = {name: files[i % shards] for i, name in enumerate(tensors)}
    for file in files:
        held = {name: tensors[name] for name, place in places.items() if place == file}
        write_file(folder / file, held, metadata)
    write_index(folder, places, stem)
    return folder


def write_index(folder: Path, weight_map: Mapping[str, str], stem: str = "model") -> Path:
    """Write a checkpoint's index."""
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": dict(weight_map)}))
    return index


def read_file(path: Path) -> dict[str, Raw]:
    """The tensors of a safetensors file, in file order."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, end = entry["data_offsets"]
        data = content[start + first : start + end]
        tensors[name] = Raw(entry["dtype"], tuple(entry["shape"]), data)
    return tensors


def read_model(path: Path) -> dict[str, Raw]:
    """All tensors of the safetensors files of a folder, or of one file."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    return {name: tensor for file in files for name, tensor in read_file(file).items()}


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Permission bits and content of every file below a folder, by relative path."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def nudge(values: NDArray, share: float, seed: int) -> NDArray:
    """A copy in which a share of the words moved to a neighbouring bit pattern."""
    rng = np.random.default_rng(seed)
    words = values.copy().view(f"u{values.dtype.itemsize}")
    words[rng.random(values.shape) < share] ^= 1
    return words.view(values.dtype)


def normal(shape: Sequence[int], dtype: str, seed: int) -> NDArray:
    """Normally distributed weights of a safetensors dtype."""
    values = np.random.default_rng(seed).normal(scale=0.02, size=shape)
    return values.astype(np.float32).astype(NUMPY[dtype])


def changer(path: Path) -> Callable[[object], None]:
    """A callback for progress that overwrites the end of a file at every event."""
    os.utime(path, ns=(0, 0))  # so that the change cannot fall on the same clock tick

    def change(_event: object) -> None:
        with path.open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(bytes(4))

    return change


def names_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
