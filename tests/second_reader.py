"""A reader of patch files written from formats/SPEC.md alone, in plain Python.

It shares no code with patchc and is as slow as it is short. It reads well-formed files.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from math import prod
from typing import Any

from blake3 import blake3

WORD_BYTES = dict(
    zip(range(1, 23), [1, 1, 1, 2, 2, 4, 4, 8, 8, 8, 4, 2, 2, *[1] * 8, 8], strict=True)
)
BITS = {code: 8 * size for code, size in WORD_BYTES.items()} | {19: 6, 20: 6, 21: 4}


@dataclass(frozen=True)
class Tensor:
    dtype: int
    shape: tuple[int, ...]
    digest: bytes
    changes: dict[int, int]
    """Position in the tensor → step."""
    deltas: list[dict[int, float]]
    """Of an additive file: for each component, position in the tensor → value."""


def read(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a file, every digest of the file itself checked."""
    trailer = data[-96:]
    index_at, index_stored, index_size, meta_stored, meta_size, features = struct.unpack(
        "<6Q", trailer[:48]
    )
    assert data[:8] == b"PATCHC\r\n"
    assert trailer[80:] == bytes(8) + b"\r\nPATCHC"
    assert features in (0, 1)
    assert data[10:12] == struct.pack("<H", features)
    index_bytes = data[index_at : index_at + index_stored]
    meta_bytes = data[index_at + index_stored : -96]
    assert len(meta_bytes) == meta_stored
    root = blake3(derive_key_context="patchc 2026-11 v1 root")
    for part in (data[:16], index_bytes, meta_bytes, trailer[:48]):
        root.update(part)
    assert root.digest() == trailer[48:80]
    index, meta = zlib.decompress(index_bytes), zlib.decompress(meta_bytes)
    assert (len(index), len(meta)) == (index_size, meta_size)
    metadata = json.loads(meta)
    values = metadata["additive"] if features else None
    return _tensors(data, index, index_at, 1 << data[12], values), metadata


def _tensors(
    data: bytes, index: bytes, index_at: int, chunk_words: int, values: dict[str, Any] | None
) -> dict[str, Tensor]:
    at = 0

    def take(kind: str, count: int) -> list[int]:
        nonlocal at
        values = list(struct.unpack_from(f"<{count}{kind}", index, at))
        at += struct.calcsize(f"<{count}{kind}")
        return values

    def digests(count: int) -> list[bytes]:
        nonlocal at
        at += 16 * count
        return [index[at - 16 * (count - i) :][:16] for i in range(count)]

    tensors, chunks = take("I", 2)
    at += 64
    lengths = take("H", tensors)
    names = []
    for length in lengths:
        names.append(index[at : at + length].decode())
        at += length
    codes, ranks = take("B", tensors), take("B", tensors)
    shapes = [tuple(take("Q", rank)) for rank in ranks]
    tensor_digests = digests(tensors)
    counts = take("I", tensors)
    numbers, codecs, entries, sizes = (take(kind, chunks) for kind in "IBII")
    body_digests = digests(chunks)
    assert at + 32 * chunks == len(index)
    if values:
        assert not any(index[40:72] + index[at + 16 * chunks :])
    result, row, body_at = {}, 0, 16
    for i, name in enumerate(names):
        words = prod(shapes[i]) * BITS[codes[i]] // (8 * WORD_BYTES[codes[i]])
        changes: dict[int, int] = {}
        deltas: list[dict[int, float]] = [{} for _ in values["components"]] if values else []
        for _ in range(counts[i]):
            body = data[body_at : body_at + sizes[row]]
            assert blake3(body).digest()[:16] == body_digests[row]
            first = numbers[row] * chunk_words
            size = min(chunk_words, words - first)
            if values:
                assert codecs[row] == 2
                parts = additive(body, size, values["value_type"])
                assert len(set().union(*parts.values())) == entries[row]
                for component, found in parts.items():
                    deltas[component] |= {first + p: value for p, value in found.items()}
            else:
                assert codecs[row] == 1
                decoded = rice(body, size, 8 * WORD_BYTES[codes[i]])
                assert len(decoded) == entries[row]
                changes |= {first + position: step for position, step in decoded}
            body_at += -(-sizes[row] // 8) * 8
            row += 1
        result[name] = Tensor(codes[i], shapes[i], tensor_digests[i], changes, deltas)
    assert body_at == index_at
    for number, component in enumerate(values["components"] if values else []):
        assert component["entries"] == sum(len(t.deltas[number]) for t in result.values())
    return result


def rice(body: bytes, words: int, width: int) -> list[tuple[int, int]]:
    """The positions and steps of a body of codec 1."""
    changes: list[tuple[int, int]] = []
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            at += 1
            value |= (body[at - 1] & 0x7F) << shift
            shift += 7
            if body[at - 1] < 0x80:
                return value

    for start in range(0, words, 65536):
        count = varint()
        if not count:
            continue
        gap_parameter, step_parameter = body[at], body[at + 1]
        at += 2
        length = varint()
        stream = body[at : at + length]
        at += length
        bits = iter([byte >> i & 1 for byte in stream for i in range(8)])
        position = -1
        for _ in range(count):
            position += 1 + code(bits, gap_parameter, 16)
            m = code(bits, step_parameter, width)
            changes.append((start + position, -(m >> 1) - 1 if m & 1 else (m >> 1) + 1))
        assert not any(bits)
    assert at == len(body)
    return changes


def additive(body: bytes, words: int, value_type: str) -> dict[int, dict[int, float]]:
    """The components of a body of codec 2, each as position → fp32 value."""
    parts: dict[int, dict[int, float]] = {}
    at = 0
    while at < len(body):
        component = body[at]
        at += 1
        positions: list[int] = []
        for start in range(0, words, 65536):
            count, at = plain_varint(body, at)
            if not count:
                continue
            parameter = body[at]
            length, at = plain_varint(body, at + 1)
            bits = iter([byte >> i & 1 for byte in body[at : at + length] for i in range(8)])
            at += length
            position = start - 1
            for _ in range(count):
                position += 1 + code(bits, parameter, 16)
                positions.append(position)
            assert not any(bits)
        n = len(positions)
        if value_type == "bf16":
            words_read = struct.unpack_from(f"<{n}H", body, at)
            found = [struct.unpack("<f", struct.pack("<I", word << 16))[0] for word in words_read]
            at += 2 * n
        else:
            blocks = -(-n // 256)
            absmax = struct.unpack_from(f"<{blocks}f", body, at)
            numbers = struct.unpack_from(f"<{n}b", body, at + 4 * blocks)
            units = [fp32(value / 127) for value in absmax]
            found = [fp32(q * units[i // 256]) for i, q in enumerate(numbers)]
            at += 4 * blocks + n
        parts[component] = dict(zip(positions, found, strict=True))
    return parts


def fp32(value: float) -> float:
    """A double rounded to fp32; exact for one quotient or product of two fp32 numbers."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def plain_varint(body: bytes, at: int) -> tuple[int, int]:
    """The varint at a byte, and the byte after it."""
    value = shift = 0
    while True:
        value |= (body[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if body[at - 1] < 0x80:
            return value, at


def code(bits: Any, parameter: int, raw: int) -> int:
    """One code of section 6.1 from an iterator of bits."""
    quotient = 0
    while next(bits):
        quotient += 1
        if quotient == 24:
            return sum(next(bits) << i for i in range(raw))
    return (quotient << parameter) + sum(next(bits) << i for i in range(parameter))
