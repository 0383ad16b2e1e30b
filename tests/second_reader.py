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
    digest: bytes | None
    changes: dict[int, int]
    """Position in the tensor → step."""
    deltas: list[dict[int, float]]
    """Of an additive file: for each component, position in the tensor → value."""


@dataclass(frozen=True)
class Index:
    """The columns of section 4.1, expanded but not interpreted."""

    tensors: int
    chunks: int
    masks: list[tuple[str, int, int]]
    shared: list[int]
    rests: list[bytes]
    codes: list[int]
    ranks: list[int]
    dims: list[int]
    counts: list[int]
    skips: list[int]
    codecs: list[int]
    entries: list[int]
    lengths: list[int]
    base_digest: bytes
    result_digest: bytes
    bodies_digest: bytes
    tensor_digests: list[bytes]
    body_digests: list[bytes]
    base_digests: list[bytes]
    result_digests: list[bytes]


def read(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a file, every digest of the file itself checked."""
    trailer = data[-96:]
    index_at, index_stored, index_size, meta_stored, meta_size, features = struct.unpack(
        "<6Q", trailer[:48]
    )
    assert data[:12] == b"PATCHC\r\n" + struct.pack("<HH", 2, 0)
    assert trailer[80:] == bytes(8) + b"\r\nPATCHC"
    assert features in (0, 1)
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
    return _tensors(data, read_index(index), index_at, 1 << data[12], values), metadata


def read_index(index: bytes) -> Index:
    """The columns of an expanded index, by their counts alone: tensor digests fill what is left."""
    at = 0

    def take(length: int) -> bytes:
        nonlocal at
        at += length
        assert at <= len(index)
        return index[at - length : at]

    def numbers(count: int) -> list[int]:
        width = take(1)[0]
        planes = [take(count) for _ in range(width)]
        return [sum(plane[i] << 8 * k for k, plane in enumerate(planes)) for i in range(count)]

    def digests(count: int) -> list[bytes]:
        return [take(8) for _ in range(count)]

    tensors, chunks = struct.unpack("<II", take(8))
    masks = []
    for _ in range(take(1)[0]):
        name = take(take(1)[0]).decode()
        masks.append((name, *struct.unpack("<QQ", take(16))))
    shared, lengths = numbers(tensors), numbers(tensors)
    rests = [take(length) for length in lengths]
    codes, ranks = list(take(tensors)), list(take(tensors))
    dims, counts, skips = numbers(sum(ranks)), numbers(tensors), numbers(chunks)
    codecs, entries, sizes = list(take(chunks)), numbers(chunks), numbers(chunks)
    whole = [take(32) for _ in range(3)]
    pinless = (len(index) - at) // 8 - 3 * chunks
    read = Index(
        tensors, chunks, masks, shared, rests, codes, ranks, dims, counts, skips, codecs, entries,
        sizes, *whole, digests(pinless), digests(chunks), digests(chunks), digests(chunks),
    )  # fmt: skip
    assert at == len(index)
    return read


def _tensors(
    data: bytes, index: Index, index_at: int, chunk_words: int, values: dict[str, Any] | None
) -> dict[str, Tensor]:
    if values:
        assert not any(index.result_digest + b"".join(index.result_digests))
    dims, tensor_digests = iter(index.dims), iter(index.tensor_digests)
    bodies = blake3(derive_key_context="patchc 2026-11 v1 bodies")
    result: dict[str, Tensor] = {}
    raw, row, body_at = b"", 0, 16
    for i, code_number in enumerate(index.codes):
        raw = raw[: index.shared[i]] + index.rests[i]
        shape = tuple(next(dims) for _ in range(index.ranks[i]))
        words = prod(shape) * BITS[code_number] // (8 * WORD_BYTES[code_number])
        changes: dict[int, int] = {}
        deltas: list[dict[int, float]] = [{} for _ in values["components"]] if values else []
        first = 0
        for _ in range(index.counts[i]):
            body = data[body_at : body_at + index.lengths[row]]
            full = blake3(body).digest()
            assert full[:8] == index.body_digests[row]
            bodies.update(full)
            first += index.skips[row] * chunk_words
            size = min(chunk_words, words - first)
            if values:
                assert index.codecs[row] == 2
                parts = additive(body, size, values["value_type"])
                assert len(set().union(*parts.values())) == index.entries[row]
                for component, found in parts.items():
                    deltas[component] |= {first + p: value for p, value in found.items()}
            else:
                assert index.codecs[row] == 1
                decoded = rice(body, size, 8 * WORD_BYTES[code_number])
                assert len(decoded) == index.entries[row]
                changes |= {first + position: step for position, step in decoded}
            body_at += index.lengths[row]
            first += chunk_words
            row += 1
        stored_all = index.counts[i] == -(-words // chunk_words)
        digest = None if stored_all else next(tensor_digests)
        result[raw.decode()] = Tensor(code_number, shape, digest, changes, deltas)
    assert not list(tensor_digests)
    assert (row, body_at) == (index.chunks, index_at)
    assert bodies.digest() == index.bodies_digest
    for number, component in enumerate(values["components"] if values else []):
        assert component["entries"] == sum(len(t.deltas[number]) for t in result.values())
    return result


def draw(component: str, seed: int, tensor: str, position: int) -> int:
    """The draw of section 4.6 for one entry of a tensor; a mask keeps it where it is below."""
    stream = blake3(component.encode() + b"\0" + tensor.encode()).digest()
    counter = [*struct.unpack("<2I", struct.pack("<Q", position // 4))]
    counter += struct.unpack("<2I", stream[:8])
    key = list(struct.unpack("<2I", struct.pack("<Q", seed)))
    for _ in range(10):
        p, q = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (q >> 32) ^ counter[1] ^ key[0],
            q % 2**32,
            (p >> 32) ^ counter[3] ^ key[1],
            p % 2**32,
        ]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return counter[position % 4]


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
