"""Bodies of codecs 1 and 2, read as formats/SPEC.md alone says; nothing imports patchc."""

from __future__ import annotations

import struct
from typing import Any


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
