"""Counts of words by their exponents, and of steps by the exponents of the words that they change.

A step s has a *symbol*: exact for |s| ≤ 32, beyond that one of 8 buckets an octave, for either
sign. So a histogram has a bounded size whatever the width of the words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.jit import Integer, allocating_loop, inlined, loop
from patchc.simd import BLOCK, bit_length, lowest, within

Counts = NDArray[np.int64]
Groups = NDArray[np.uint8]

_EXACT_BITS = 5
_BUCKET_BITS = 3

_TILE = 4096
_FEW = 1 << 15  # words for which a table of pairs is too large
_EXPONENT_BITS, _GROUP_BITS = 5, 2
_CODE_BITS = _EXPONENT_BITS + _GROUP_BITS
_OTHER = np.uint64((1 << _EXPONENT_BITS) - 1)
_GROUPS = 1 << _GROUP_BITS
_NO_GROUPS = np.zeros(1, np.uint8)


def symbols(word_bits: int) -> int:
    """How many symbols the steps of words of this width can have."""
    return 2 * ((1 << _EXACT_BITS) + (word_bits - 1 - _EXACT_BITS << _BUCKET_BITS))


def raw_bits(word_bits: int) -> NDArray[np.int64]:
    """For each symbol, how many bits tell its steps apart."""
    octaves = np.repeat(np.arange(_EXACT_BITS, word_bits - 1), 1 << _BUCKET_BITS) - _BUCKET_BITS
    return np.repeat(np.concatenate((np.zeros(1 << _EXACT_BITS, np.int64), octaves)), 2)


def count_words(words: Words, shift: int, bits: int, groups: Groups | None = None) -> Counts:
    """Number of words by group and exponent.

    Args:
        words: any, contiguous; the bits above an exponent are one sign at most.
        shift, bits: the exponent is the ``bits`` bits from bit ``shift`` on.
        groups: one for each word, below 4; None where all are in one.

    Returns:
        Shape (4, 2^bits), or (1, 2^bits) where all are in one group.
    """
    members, grouped, rows = _rows(groups)
    counts = np.zeros((rows, 1 << bits), np.int64)
    if not bits:
        counts[:, 0] = words.size if groups is None else np.bincount(groups, minlength=rows)
        return counts
    _count_words(words, members, grouped, shift, bits, counts)
    return counts


def _rows(groups: Groups | None) -> tuple[Groups, bool, int]:
    """Groups as the loops take them, whether there are any, and how many."""
    return (_NO_GROUPS, False, 1) if groups is None else (groups, True, _GROUPS)


@allocating_loop
def _count_words(
    words: Words, groups: Groups, grouped: bool, shift: Integer, bits: Integer, counts: Counts
) -> None:
    first: Integer = np.int64(0)
    if words.size >= _FEW:
        first = words.size // _TILE * _TILE
        _count_pairs(words[:first], groups, grouped, shift, bits, counts)
    mask = np.uint64((1 << bits) - 1)
    for i in range(first, words.size):
        own = groups[i] if grouped else np.uint8(0)
        counts[own, (np.uint64(words[i]) >> np.uint64(shift)) & mask] += 1


@allocating_loop
def _count_pairs(
    words: Words, groups: Groups, grouped: bool, shift: Integer, bits: Integer, counts: Counts
) -> None:
    """Count two words at once: half the updates, which are what a histogram waits for.

    The exponents below the greatest have a code each, and all that are lower still have the last
    one; those words, which are few, are then counted one by one.
    """
    up, mask = np.uint64(shift), np.uint64((1 << bits) - 1)
    top = np.uint64(0)
    for i in range(words.size):
        top = max(top, (np.uint64(words[i]) >> up) & mask)
    table = np.zeros(1 << 2 * _CODE_BITS, np.uint32)
    codes = np.zeros(_TILE, np.uint8)
    pairs, quads = codes.view(np.uint16), codes.view(np.uint64)
    code_mask, low = np.uint16((1 << _CODE_BITS) - 1), np.uint64(0xFFFF)
    for start in range(0, words.size, _TILE):
        tile = words[start : start + _TILE]
        for i in range(_TILE):
            codes[i] = min(top - ((np.uint64(tile[i]) >> up) & mask), _OTHER)
        if grouped:
            own = groups[start : start + _TILE]
            for i in range(_TILE):
                codes[i] |= own[i] << np.uint8(_EXPONENT_BITS)
        for i in range(pairs.size):
            pair = pairs[i]
            pairs[i] = (pair & code_mask) | (
                (pair >> np.uint16(8 - _CODE_BITS)) & (code_mask << np.uint16(_CODE_BITS))
            )
        for i in range(quads.size):
            quad = quads[i]
            table[quad & low] += np.uint32(1)
            table[(quad >> np.uint64(16)) & low] += np.uint32(1)
            table[(quad >> np.uint64(32)) & low] += np.uint32(1)
            table[quad >> np.uint64(48)] += np.uint32(1)
    others = np.int64(0)
    for pair in range(table.size):
        for code in (pair & ((1 << _CODE_BITS) - 1), pair >> _CODE_BITS):
            if np.uint64(code) & _OTHER == _OTHER:
                others += table[pair]
            elif table[pair]:
                counts[code >> _EXPONENT_BITS, np.int64(top) - (code & np.int64(_OTHER))] += table[
                    pair
                ]
    if others:
        _count_below(words, groups, grouped, top - _OTHER + np.uint64(1), up, mask, counts)


@inlined
def _count_below(
    words: Words, groups: Groups, grouped: bool, limit: Integer, up: Integer, mask: Integer,
    counts: Counts,
) -> None:  # fmt: skip
    """Count the words with an exponent below ``limit``, in whole blocks."""
    last = (limit << up) - np.uint64(1)
    for first in range(np.uint64(0), np.uint64(words.size), np.uint64(BLOCK)):
        found = within(words, first, np.uint64(0), last)
        while found:
            i = first + lowest(found)
            counts[groups[i] if grouped else np.uint8(0), (np.uint64(words[i]) >> up) & mask] += 1
            found &= found - np.uint64(1)


def count_steps(
    words: Words,
    positions: NDArray[np.uint32],
    steps: NDArray[np.int64],
    shift: int,
    bits: int,
    groups: Groups | None = None,
) -> tuple[NDArray[np.int64], Counts]:
    """Number of steps by the word's group and exponent, and by symbol.

    Args:
        words, shift, bits, groups: as for :func:`count_words`.
        positions: of the words that change.
        steps: as many.

    Returns:
        Group · 2^bits + exponent of all that have steps, and for each a row of :func:`symbols`
        columns.
    """
    members, grouped, kinds = _rows(groups)
    cells = np.empty(len(positions), np.uint16)
    hits = np.zeros(kinds << bits, np.int64)
    _find_cells(words, positions, members, grouped, shift, bits, cells, hits)
    used = np.flatnonzero(hits)
    rows = np.zeros(len(hits), np.uint32)
    rows[used] = np.arange(len(used))
    counts = np.zeros((len(used), symbols(8 * words.itemsize)), np.int64)
    _count_symbols(cells, steps, rows, counts)
    return used, counts


@loop
def _find_cells(
    words: Words, positions: NDArray[np.uint32], groups: Groups, grouped: bool, shift: Integer,
    bits: Integer, cells: NDArray[np.uint16], hits: Counts,
) -> None:  # fmt: skip
    mask = np.uint64((1 << bits) - 1)
    for change in range(positions.size):
        cells[change] = (np.uint64(words[positions[change]]) >> np.uint64(shift)) & mask
    if grouped:
        for change in range(positions.size):
            cells[change] |= np.uint64(groups[positions[change]]) << np.uint64(bits)
    for change in range(positions.size):
        hits[cells[change]] += 1


@allocating_loop
def _count_symbols(
    cells: NDArray[np.uint16], steps: NDArray[np.int64], rows: NDArray[np.uint32], counts: Counts
) -> None:
    tile = np.empty(_TILE, np.uint16)
    for start in range(0, cells.size, _TILE):
        count = min(_TILE, cells.size - start)
        for i in range(count):
            tile[i] = _symbol(steps[start + i])
        for i in range(count):
            counts[rows[cells[start + i]], tile[i]] += 1


@inlined
def _symbol(step: Integer) -> Integer:
    """The symbol, without a branch, which a random step would mislead."""
    negative = step >> 63
    value = (step ^ negative) - (negative + 1)
    octave = max(bit_length(np.uint64(value)) - 1, _EXACT_BITS)
    bucket = (value >> (octave - _BUCKET_BITS)) & ((1 << _BUCKET_BITS) - 1)
    above = (1 << _EXACT_BITS) + ((octave - _EXACT_BITS) << _BUCKET_BITS) + bucket
    return (value if value >> _EXACT_BITS == 0 else above) << 1 | -negative
