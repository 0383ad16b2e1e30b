"""Checkpoints for an example of codec 3 that has all kinds of populations and tables.

Words follow from digests of their tensor's name, so that no generator has to stay as it is.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from pathlib import Path

from blake3 import blake3
from tiny_checkpoints import Raw, write_file

TENSORS = {
    "bf16": ("BF16", 16, 3000),
    "e5m2": ("F8_E5M2", 8, 900),
    "f16": ("F16", 16, 2000),
    "f32": ("F32", 32, 1000),
    "f64": ("F64", 64, 70),
    "f8": ("F8_E4M3", 8, 900),
    "flags": ("U8", 8, 600),
    "noise": ("I32", 32, 40),
    "still": ("BF16", 16, 8),
}
"""Name → dtype, bits of a word, number of words."""

FLOATS = {
    "BF16": (7, 8),
    "F16": (10, 5),
    "F32": (23, 8),
    "F64": (52, 11),
    "F8_E4M3": (3, 4),
    "F8_E5M2": (2, 5),
}
"""Mantissa and exponent bits."""

STEPS = {
    "bf16": [*[1, 1, 1, 1, 1, 2, -1, -1] * 8, 0],
    "e5m2": [1, -1],
    "f16": [1, -1, 2, -3, -700, -700],
    "f32": [3, 3, 3, -9],
    "f64": [1 << 40, -(1 << 40), 12345],
    "f8": [*[1, -1] * 8, 20],
}
"""By how much words of a tensor move; for 0, to 0."""

SIDES = ("base", "tuned", "tuned-again")


def words_of(name: str) -> tuple[list[int], list[int], list[int]]:
    """The words of a tensor in each of the models."""
    dtype, width, count = TENSORS[name]
    drawn = _draws(name, count)
    if name == "flags":
        bits = [word % 256 for word in drawn]
        flipped = [
            word ^ (0x55 if draw >> 60 else 0xAA) for word, draw in zip(bits, drawn, strict=True)
        ]
        return bits, flipped, bits
    if name == "noise":
        rows = [[draw % 2**32 for draw in _draws(f"{name} {side}", count)] for side in SIDES]
        return rows[0], rows[1], rows[2]
    first = [_number(draw, *FLOATS[dtype], width) for draw in drawn]
    if name == "still":
        return first, first, first
    second = _tuned(first, _draws(f"{name} second", count), width, STEPS[name])
    return first, second, _tuned(second, _draws(f"{name} third", count), width, STEPS[name])


def _draws(name: str, count: int) -> list[int]:
    """Numbers of 64 bits that follow from a name."""
    data = blake3(name.encode()).digest(length=8 * count)
    return [int.from_bytes(data[8 * i : 8 * i + 8], "little") for i in range(count)]


def _number(draw: int, mantissa: int, exponent: int, width: int) -> int:
    """A float below 1, negative only of 16 bits, each exponent half as likely as the next."""
    lower = _trailing_zeros(draw >> 8)
    top = max(0, (1 << (exponent - 1)) - 2 - lower)
    sign = draw >> 63 if width == 16 else 0
    return sign << (width - 1) | top << mantissa | draw % (1 << mantissa)


def _tuned(words: list[int], draws: list[int], width: int, steps: Sequence[int]) -> list[int]:
    """Small numbers move often, others seldom, and the great ones not at all."""
    half = 1 << (width - 1)
    magnitudes = sorted(word % half for word in words)
    moved = []
    for word, draw in zip(words, draws, strict=True):
        quarter = 4 * bisect(magnitudes, word % half) // len(words)
        share = (32, 4, 0, 0, 0)[quarter]
        step = steps[(draw >> 32) % len(steps)]
        stays = draw % 64 >= share or not 0 < word % half + step < half
        moved.append(word if stays else word + step if step else 0)
    return moved


def _trailing_zeros(draw: int) -> int:
    """At most 12."""
    word = draw & 0xFFF | 0x1000
    return (word & -word).bit_length() - 1


def write_models(folder: Path) -> list[Path]:
    """A folder for each of the models."""
    for side, name in enumerate(SIDES):
        tensors = {}
        for tensor, (dtype, width, count) in TENSORS.items():
            data = b"".join(w.to_bytes(width // 8, "little") for w in words_of(tensor)[side])
            tensors[tensor] = Raw(dtype, (count,), data)
        write_file(folder / name / "model.safetensors", tensors)
    return [folder / name for name in SIDES]
