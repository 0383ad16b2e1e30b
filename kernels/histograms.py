"""Counts of words by their exponents, and of steps by the exponents of the words that they change.

A step s has a *symbol*: exact for |s| ≤ 32, beyond that one of 8 buckets an octave, for either
sign. So a histogram has a bounded size whatever the width of the words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.compiled import Integer, compiled, inlined

Words = NDArray[np.unsignedinteger]
Counts = NDArray[np.uint32]

_EXACT_BITS = 5
_BUCKET_BITS = 3


def symbols(word_bits: int) -> int:
    """How many symbols the steps of words of this width can have."""
    return 2 * ((1 << _EXACT_BITS) + (word_bits - 1 - _EXACT_BITS << _BUCKET_BITS))


def raw_bits(word_bits: int) -> NDArray[np.int64]:
    """Of each symbol, the bits that tell its steps apart."""
    octaves = np.repeat(np.arange(_EXACT_BITS, word_bits - 1), 1 << _BUCKET_BITS) - _BUCKET_BITS
    return np.repeat(np.concatenate((np.zeros(1 << _EXACT_BITS, np.int64), octaves)), 2)


def count_exponents(words: Words, shift: int, bits: int) -> NDArray[np.int64]:
    """Number of words by exponent, the ``bits`` bits from bit ``shift`` on."""
    counts = np.zeros(1 << bits, np.int64)
    if not bits:
        counts[0] = words.size
    elif words.itemsize == 2 and words.size > 1 << 2 * bits:
        _count_pairs(words[: words.size & ~1].view(np.uint32), shift, bits, counts)
        _count_each(words[words.size & ~1 :], shift, bits, counts)
    else:
        _count_each(words, shift, bits, counts)
    return counts


@compiled
def count_in_groups(
    words: Words,
    groups: NDArray[np.uint8],
    shift: Integer,
    bits: Integer,
    counts: NDArray[np.int64],
) -> None:
    """Add to ``counts``, by group and exponent, the number of words.

    Args:
        words: any.
        groups: one a word.
        shift, bits: as for :func:`count_exponents`.
        counts: a row for every group, of 2^``bits`` columns.
    """
    mask = np.uint64((1 << bits) - 1)
    for i in range(words.size):
        counts[groups[i], (np.uint64(words[i]) >> np.uint64(shift)) & mask] += 1


@compiled
def _count_pairs(
    pairs: NDArray[np.uint32], shift: Integer, bits: Integer, counts: NDArray[np.int64]
) -> None:
    """Count two exponents at once: half the updates, which are what a histogram waits for."""
    size = 1 << bits
    table = np.zeros(size * size, np.uint32)
    right, up = np.uint32(shift), np.uint32(16 - bits)
    low = np.uint32(size - 1)
    high = np.uint32(low << bits)
    for i in range(pairs.size):
        moved = pairs[i] >> right
        table[(moved & low) | ((moved >> up) & high)] += np.uint32(1)
    for second in range(size):
        total = np.int64(0)
        for first in range(size):
            count = np.int64(table[second * size + first])
            counts[first] += count
            total += count
        counts[second] += total


@compiled
def _count_each(words: Words, shift: Integer, bits: Integer, counts: NDArray[np.int64]) -> None:
    mask = np.uint64((1 << bits) - 1)
    for i in range(words.size):
        counts[(np.uint64(words[i]) >> np.uint64(shift)) & mask] += 1


@compiled
def count_steps(
    words: Words,
    steps: NDArray[np.int64],
    shift: Integer,
    bits: Integer,
    counts: Counts,
) -> None:
    """Add to ``counts``, by exponent and symbol, the steps that change ``words``, one a word.

    ``counts`` has 2^``bits`` rows of :func:`symbols` columns.
    """
    mask = np.uint64((1 << bits) - 1)
    for i in range(steps.size):
        exponent = (np.uint64(words[i]) >> np.uint64(shift)) & mask
        counts[exponent, _symbol(steps[i])] += np.uint32(1)


@inlined
def _symbol(step: Integer) -> Integer:
    negative = np.int64(step < 0)
    value = -(step + 1) if negative else step - 1
    if value >> _EXACT_BITS == 0:
        return value << 1 | negative
    octave = np.int64(_EXACT_BITS)
    while value >> (octave + 1):
        octave += 1
    bucket = (value >> (octave - _BUCKET_BITS)) & ((1 << _BUCKET_BITS) - 1)
    symbol = (1 << _EXACT_BITS) + ((octave - _EXACT_BITS) << _BUCKET_BITS) + bucket
    return symbol << 1 | negative
