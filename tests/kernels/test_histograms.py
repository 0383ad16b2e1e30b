"""Counts of words and of steps against plain counting, around tiles and below the window."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from patchc.kernels.histograms import count_steps, count_words, symbols

EXPONENTS = {16: (7, 8), 8: (3, 4), 32: (23, 8), 64: (52, 11)}
Words = NDArray[np.unsignedinteger]


def words_of(kind: str, width: int, count: int) -> Words:
    """Words whose exponents lie close together, anywhere, or far below a few great ones."""
    rng = np.random.default_rng([width, count])
    dtype = np.dtype(f"u{width // 8}")
    words = rng.integers(0, (1 << width) - 1, count, dtype, endpoint=True)
    if kind == "near":
        low, bits = EXPONENTS[width]
        near = rng.integers(0, min(8, 1 << bits), count).astype(dtype) << dtype.type(low)
        words = words & dtype.type((1 << low) - 1) | near
    elif kind == "zeros":
        words[rng.random(count) < 0.999] = 0
    return words


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("count", [0, 1, 4097, (1 << 15) - 1, 1 << 15, 40_001])
@pytest.mark.parametrize("kind", ["near", "any", "zeros"])
@pytest.mark.parametrize("width", sorted(EXPONENTS))
def test_words_are_counted_by_group_and_exponent(
    width: int, kind: str, count: int, grouped: bool
) -> None:
    words, (low, bits) = words_of(kind, width, count), EXPONENTS[width]
    groups = np.random.default_rng(count).integers(0, 4, count, np.uint8) if grouped else None
    expected = np.zeros((4 if grouped else 1, 1 << bits), np.int64)
    exponents = [int(word) >> low & (1 << bits) - 1 for word in words]
    for group, exponent in zip(groups if grouped else [0] * count, exponents, strict=True):
        expected[group, exponent] += 1
    assert np.array_equal(count_words(words, low, bits, groups), expected)


def test_words_without_exponents_are_counted_by_group() -> None:
    words, groups = np.arange(5, dtype=np.uint16), np.array([3, 0, 3, 1, 3], np.uint8)
    assert count_words(words, 0, 0).tolist() == [[5]]
    assert count_words(words, 0, 0, groups).tolist() == [[1], [1], [0], [3]]


def symbol(step: int) -> int:
    """By the module's own words: exact up to 32, then 8 buckets an octave of |step| − 1."""
    value = abs(step) - 1
    octave = max(5, value.bit_length() - 1)
    bucket = 32 + 8 * (octave - 5) + (value >> octave - 3) - 8 if value >= 32 else value
    return 2 * bucket + (step < 0)


@pytest.mark.parametrize("width", sorted(EXPONENTS))
def test_steps_are_counted_by_cell_and_symbol(width: int) -> None:
    rng, (low, bits) = np.random.default_rng(width), EXPONENTS[width]
    words, groups = words_of("any", width, 6000), rng.integers(0, 4, 6000, np.uint8)
    positions = np.flatnonzero(rng.random(6000) < 0.8).astype(np.uint32)
    most = (1 << width - 1) - 1
    sizes = (2 ** rng.uniform(0, width - 2, len(positions))).astype(np.int64)
    steps = np.where(rng.random(len(positions)) < 0.5, sizes, -sizes)
    steps[:6] = [1, -1, 32, -33, most, -most - 1]
    cells, counts = count_steps(words, positions, steps, low, bits, groups)
    found = Counter(
        ((int(groups[at]) << bits) + (int(words[at]) >> low & (1 << bits) - 1), symbol(int(step)))
        for at, step in zip(positions, steps, strict=True)
    )
    assert counts.shape == (len(cells), symbols(width))
    assert cells.tolist() == sorted({cell for cell, _ in found})
    rows = {cell: row for row, cell in enumerate(cells.tolist())}
    assert counts.sum() == len(positions)
    assert all(counts[rows[cell], number] == count for (cell, number), count in found.items())
