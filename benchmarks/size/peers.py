"""How others store the same change: published packages, and codings that we wrote after papers.

Each takes tensors in memory, writes one file, and gives the tensors back.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import bsdiff4
import deltatensors
import fireworks_delta_compression as fireworks
import numpy as np
import torch
import zstandard
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from torch import Tensor

PACKAGES = ("fireworks-delta-compression", "deltatensors", "zstandard", "bsdiff4")

Model = dict[str, Tensor]
Words = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Peer:
    """A way to store a change. ``decode`` may change the base that it is given.

    Where more than ``most`` words change it would take too long and is given a part of the model.
    """

    name: str
    encode: Callable[[Model, Model, Path], None]
    decode: Callable[[Model, Path], Model]
    most: float = math.inf


def words(value: Tensor) -> Words:
    """A tensor's words, flat; the same memory."""
    flat = value.view(-1).view(torch.uint8).numpy()
    return flat.view(f"u{value.element_size()}")


def peers() -> list[Peer]:
    """All of them, in the order of the table."""
    return [
        _coo("int32 + values in safetensors", compressed=False),
        _coo("the same + zstd-1", compressed=True),
        *(_fireworks(version) for version in ("arc_v1", "arc_v2", "arc_v3")),
        Peer("deltatensors sparse", _encode_deltatensors, _decode_deltatensors),
        _gaps("u16 gaps + XOR, zstd-1", np.uint16, xor=True, level=1),
        _gaps("u16 gaps + XOR, zstd-19", np.uint16, xor=True, level=19),
        _gaps("u8 gaps + values, zstd-1", np.uint8, xor=False, level=1),
        _dense("dense XOR + zstd-1", 1),
        _dense("dense XOR + zstd-19", 19),
        Peer("bsdiff", _encode_bsdiff, _decode_bsdiff, most=0),
    ]


# Packages ----------------------------------------------------------------------------------------


def _fireworks(version: str) -> Peer:
    def encode(before: Model, after: Model, path: Path) -> None:
        with ThreadPoolExecutor() as pool:
            fireworks.delta_compress_dicts_to_file(
                src=before, dst=after, diff_file=path, compression_format=version, executor=pool
            )

    def decode(before: Model, path: Path) -> Model:
        with ThreadPoolExecutor() as pool:
            return fireworks.delta_decompress_dict_from_file(
                src=before, diff_file=path, compression_format=version, executor=pool
            )

    return Peer(f"fireworks {version}", encode, decode)


def _encode_deltatensors(before: Model, after: Model, path: Path) -> None:
    """A file a tensor, each with the share that keeps every change: the best it can do."""
    parts = []
    for name in before:
        changed = int((words(before[name]) != words(after[name])).sum())
        share = 1 - (changed + 0.5) / before[name].numel()
        if changed:
            sides = ({"t": model[name].float()} for model in (after, before))
            with contextlib.redirect_stdout(io.StringIO()):
                deltatensors.save_delta(path, *sides, strategy="sparse", sparsity=max(share, 0.0))
            parts.append((name, path.read_bytes()))
    _write_parts(path, dict(parts))


def _decode_deltatensors(before: Model, path: Path) -> Model:
    after = dict(before)
    part = path.with_suffix(".part")
    for name, content in _read_parts(path).items():
        part.write_bytes(content)
        with contextlib.redirect_stdout(io.StringIO()):
            made = deltatensors.load_delta(part, {"t": before[name].float()}, verify=False)
        after[name] = torch.from_numpy(made["t"]).to(before[name].dtype)
    return after


def _encode_bsdiff(before: Model, after: Model, path: Path) -> None:
    path.write_bytes(bsdiff4.diff(*(b"".join(map(_bytes, m.values())) for m in (before, after))))


def _decode_bsdiff(before: Model, path: Path) -> Model:
    joined = b"".join(map(_bytes, before.values()))
    return _cut(bsdiff4.patch(joined, path.read_bytes()), before)


# Codings after papers ----------------------------------------------------------------------------


def _coo(name: str, compressed: bool) -> Peer:
    """Positions as int32 and new values, two tensors for each changed one (TRL, vLLM)."""

    def encode(before: Model, after: Model, path: Path) -> None:
        arrays = {}
        for tensor, positions, _, values in _changes(before, after):
            arrays[f"{tensor}.i"] = positions.astype(np.int32)
            arrays[f"{tensor}.v"] = values
        content = save_arrays(arrays)
        path.write_bytes(_zstd(content, 1) if compressed else content)

    def decode(before: Model, path: Path) -> Model:
        content = path.read_bytes()
        arrays = load_arrays(_unzstd(content) if compressed else content)
        for tensor, value in before.items():
            if f"{tensor}.i" in arrays:
                words(value)[arrays[f"{tensor}.i"]] = arrays[f"{tensor}.v"]
        return before

    return Peer(name, encode, decode)


def _gaps(name: str, gap: type[np.unsignedinteger], xor: bool, level: int) -> Peer:
    """Gaps of one width, the largest meaning "go on", and values, each through zstd.

    With XOR like NeMo-RL, with new values like PULSE.
    """
    most = int(np.iinfo(gap).max)

    def encode(before: Model, after: Model, path: Path) -> None:
        gaps, values, table = [], [], {}
        for tensor, positions, old, new in _changes(before, after):
            distances = np.diff(positions, prepend=-1) - 1
            skips = distances // most
            stream = np.full(len(positions) + int(skips.sum()), most, gap)
            stream[np.cumsum(skips + 1) - 1] = distances - skips * most
            gaps.append(stream.tobytes())
            values.append((old ^ new if xor else new).tobytes())
            table[tensor] = len(stream)
        streams = {"gaps": b"".join(gaps), "values": b"".join(values)}
        packed = {part: _zstd(content, level) for part, content in streams.items()}
        _write_parts(path, packed | {"table": _zstd(json.dumps(table).encode(), 1)})

    def decode(before: Model, path: Path) -> Model:
        parts = {part: _unzstd(content) for part, content in _read_parts(path).items()}
        gaps, at, value_at = np.frombuffer(parts["gaps"], gap), 0, 0
        for tensor, length in json.loads(parts["table"]).items():
            stream = gaps[at : at + length].astype(np.int64)
            last = stream != most
            positions = (np.cumsum(stream + last) - 1)[last]
            target = words(before[tensor])
            size = len(positions) * target.itemsize
            values = np.frombuffer(parts["values"][value_at : value_at + size], target.dtype)
            target[positions] = target[positions] ^ values if xor else values
            at, value_at = at + length, value_at + size
        return before

    return Peer(name, encode, decode, _most(level))


def _dense(name: str, level: int) -> Peer:
    """The XOR of all words, changed or not."""

    def encode(before: Model, after: Model, path: Path) -> None:
        packer = zstandard.ZstdCompressor(level=level).compressobj()
        with path.open("wb") as file:
            for tensor in before:
                file.write(packer.compress((words(before[tensor]) ^ words(after[tensor])).data))
            file.write(packer.flush())

    def decode(before: Model, path: Path) -> Model:
        size = sum(value.nbytes for value in before.values())
        content = zstandard.ZstdDecompressor().decompress(path.read_bytes(), size)
        for tensor, part in _cut(content, before).items():
            target = words(before[tensor])
            np.bitwise_xor(target, words(part), out=target)
        return before

    return Peer(name, encode, decode, _most(level))


# Pieces ------------------------------------------------------------------------------------------


def _changes(before: Model, after: Model) -> Iterator[tuple[str, NDArray[np.int64], Words, Words]]:
    """Of each changed tensor: positions, old and new words."""
    for tensor in before:
        old, new = words(before[tensor]), words(after[tensor])
        positions = np.flatnonzero(old != new)
        if len(positions):
            yield tensor, positions, old[positions], new[positions]


def _most(level: int) -> float:
    return 1 << 24 if level > 1 else math.inf


def _zstd(content: bytes, level: int) -> bytes:
    return zstandard.ZstdCompressor(level=level).compress(content)


def _unzstd(content: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(content)


def _write_parts(path: Path, parts: dict[str, bytes]) -> None:
    header = json.dumps({name: len(content) for name, content in parts.items()}).encode()
    path.write_bytes(b"".join((len(header).to_bytes(8, "little"), header, *parts.values())))


def _read_parts(path: Path) -> dict[str, bytes]:
    content = path.read_bytes()
    at = 8 + int.from_bytes(content[:8], "little")
    parts = {}
    for name, size in json.loads(content[8:at]).items():
        parts[name] = content[at : at + size]
        at += size
    return parts


def _bytes(value: Tensor) -> bytes:
    return words(value).tobytes()


def _cut(content: bytes, like: Model) -> Model:
    """Tensors from their bytes one after the other, shaped like those of another model."""
    made, at = {}, 0
    for name, value in like.items():
        size = math.prod(value.shape) * value.element_size()
        flat = torch.frombuffer(bytearray(content[at : at + size]), dtype=value.dtype)
        made[name] = flat.view(value.shape)
        at += size
    return made
