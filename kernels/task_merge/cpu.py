"""The merge of task vectors of any number of models where they are kept, in one pass over the
weights.

The arithmetic is that of ``reference.py``, which is also its oracle: fp32, each product, sum and
quotient rounded on its own, models in the order given. Where a loop here says that something is at
fault, the oracle tells what.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.jit import Integer, kernel, kernel_helper
from patchc.kernels.bitmask import Bitmask
from patchc.kernels.tiles import (
    INFINITY,
    MAGNITUDE,
    TILE,
    Bits,
    Floats,
    Rows,
    convert,
    convert_row,
    expand,
    new_tiles,
    round_chosen,
)

_TILES = 8


def magnitudes(base: Words, code: int, tuned: Words, tuned_code: int, out: Bits) -> bool:
    """Write |tuned − base| into ``out``, as the bits of fp32 values.

    Returns:
        Whether a value of either or a difference is not finite.
    """
    return _magnitudes(base, code, tuned, tuned_code, out, new_tiles(1)[0])


@kernel
def _magnitudes(
    base: Words, code: int, tuned: Words, tuned_code: int, out: Bits, origin: Floats
) -> bool:
    largest = np.uint32(0)
    for start in range(0, base.size, TILE):
        end = min(start + TILE, base.size)
        tile, bits = origin[: end - start], out[start:end]
        convert(base[start:end], code, tile)
        convert(tuned[start:end], tuned_code, bits.view(np.float32))
        largest = max(largest, _subtract(bits.view(np.float32), tile))
        for i in range(bits.size):
            bits[i] &= MAGNITUDE
    return bool(largest >= INFINITY)


def merge_task_vectors(
    base: Words,
    code: int,
    tuned: Rows,
    codes: NDArray[np.int64],
    marks: Bitmask,
    scales: Floats,
    elects: bool,
    majority: int,
    factor: np.float32,
    result: Words,
    kept: NDArray[np.int64],
) -> bool:
    """Write base + factor · Σ scale · (tuned − base), rounded to the base's dtype.

    With an election, the weighted mean of the terms that agree with the sign of their sum takes
    the sum's place. Where nothing is added the base's word stays as it is.

    Args:
        base, code: the base's words and their dtype.
        tuned, codes: the words of each model, one row of bytes each, and their dtypes.
        marks: the entries that are kept, one row a model; zero deltas never are.
        scales: a factor for each model; its weight, and not negative, in an election.
        elects: whether there is an election.
        majority: its sign stands in for that of a sum that is exactly zero.
        factor: λ.
        result: as long as ``base``; overwritten.
        kept: the number of each model's kept entries is added.

    Returns:
        Whether a value is not finite, of the base, of a model or of a difference, kept or not, or
        of the outcome, or overflows the dtype; the result is of no use then.
    """
    return _merge_kept(
        base, code, tuned, codes, marks, scales, elects, majority, factor, result, kept,
        new_tiles(_TILES),
    )  # fmt: skip


@kernel
def _merge_kept(
    base: Words,
    code: int,
    tuned: Rows,
    codes: NDArray[np.int64],
    marks: Bitmask,
    scales: Floats,
    elects: bool,
    majority: int,
    factor: np.float32,
    result: Words,
    kept: NDArray[np.int64],
    tiles: Floats,
) -> bool:
    largest, faulty = np.uint32(0), False
    for start in range(0, base.size, TILE):
        end = min(start + TILE, base.size)
        count, words = end - start, base[start:end]
        origin, delta, total = tiles[0, :count], tiles[1, :count], tiles[2, :count]
        above, above_weight = tiles[3, :count], tiles[4, :count]
        below, below_weight = tiles[5, :count], tiles[6, :count]
        chosen = tiles[7].view(np.uint32)
        takes = chosen[:count]
        convert(words, code, origin)
        total[:] = 0
        if elects:
            tiles[3:7] = 0
        for model in range(codes.size):
            convert_row(tuned[model], codes[model], start, delta)
            largest = max(largest, _subtract(delta, origin))
            expand(marks[model, start >> 5 : (end + 31) >> 5], chosen)
            kept[model] += _drop_zeros(delta, takes)
            if elects:
                _add_term(delta, takes, scales[model], total)
                _add_votes(delta, True, scales[model], above, above_weight)
                _add_votes(delta, False, scales[model], below, below_weight)
            else:
                _add(delta, takes, scales[model], total)
        if elects:
            faulty |= _elect(total, above, above_weight, below, below_weight, majority)
        _add_total(origin, total, factor, takes)
        faulty |= round_chosen(words, code, total, takes, result[start:end])
    return bool(faulty or largest >= INFINITY)


def count_signs(
    base: Words,
    code: int,
    tuned: Rows,
    codes: NDArray[np.int64],
    marks: Bitmask,
    scales: Floats,
) -> int:
    """How many more sums of kept terms are positive than negative."""
    return _count_kept_signs(base, code, tuned, codes, marks, scales, new_tiles(_TILES))


@kernel
def _count_kept_signs(
    base: Words,
    code: int,
    tuned: Rows,
    codes: NDArray[np.int64],
    marks: Bitmask,
    scales: Floats,
    tiles: Floats,
) -> int:
    balance = 0
    for start in range(0, base.size, TILE):
        end = min(start + TILE, base.size)
        count = end - start
        origin, delta, total = tiles[0, :count], tiles[1, :count], tiles[2, :count]
        chosen = tiles[3].view(np.uint32)
        takes = chosen[:count]
        convert(base[start:end], code, origin)
        total[:] = 0
        for model in range(codes.size):
            convert_row(tuned[model], codes[model], start, delta)
            _subtract(delta, origin)
            expand(marks[model, start >> 5 : (end + 31) >> 5], chosen)
            _drop_zeros(delta, takes)
            _add(delta, takes, scales[model], total)
        balance += _balance(total)
    return balance


@kernel_helper
def _subtract(values: Floats, origin: Floats) -> np.uint32:
    """Subtract in place, and give the largest magnitude of the differences' bits."""
    bits = values.view(np.uint32)
    largest = np.uint32(0)
    for i in range(origin.size):
        values[i] = np.float32(values[i] - origin[i])
        largest = max(largest, bits[i] & MAGNITUDE)
    return largest


@kernel_helper
def _drop_zeros(delta: Floats, takes: Bits) -> Integer:
    """Choose no zero delta, and count what is chosen."""
    kept = np.uint32(0)
    for i in range(delta.size):
        taken = (takes[i] != 0) & (delta[i] != 0)
        takes[i] = taken
        kept += np.uint32(taken)
    return np.int64(kept)


@kernel_helper
def _add(delta: Floats, takes: Bits, scale: np.float32, total: Floats) -> None:
    for i in range(delta.size):
        added = np.float32(total[i] + np.float32(scale * delta[i]))
        total[i] = added if takes[i] else total[i]


@kernel_helper
def _add_term(delta: Floats, takes: Bits, weight: np.float32, total: Floats) -> None:
    """As :func:`_add`, and leave the terms in place of the deltas."""
    for i in range(delta.size):
        term = np.float32(weight * delta[i]) if takes[i] else np.float32(0)
        delta[i] = term
        total[i] = np.float32(total[i] + term)


@kernel_helper
def _add_votes(
    terms: Floats, positive: bool, weight: np.float32, sums: Floats, weights: Floats
) -> None:
    """Add the terms of one sign, and the weight of each, to those of that side."""
    zero = np.float32(0)
    for i in range(terms.size):
        agrees = terms[i] > 0 if positive else terms[i] < 0
        sums[i] = np.float32(sums[i] + (terms[i] if agrees else zero))
        weights[i] = np.float32(weights[i] + (weight if agrees else zero))


@kernel_helper
def _elect(
    total: Floats,
    above: Floats,
    above_weight: Floats,
    below: Floats,
    below_weight: Floats,
    majority: int,
) -> Integer:
    """Replace each sum by the mean of what agrees with it; tells whether a sum is not finite."""
    bits = total.view(np.uint32)
    largest, zero = np.uint32(0), np.float32(0)
    for i in range(total.size):
        largest = max(largest, bits[i] & MAGNITUDE)
        sign = total[i] if total[i] != 0 else np.float32(majority)
        # All four are read, so that no read depends on the sign.
        up, up_weight, down, down_weight = above[i], above_weight[i], below[i], below_weight[i]
        agreeing, weight = (up if sign > 0 else down), (up_weight if sign > 0 else down_weight)
        mean = np.float32(agreeing / weight)
        total[i] = mean if (sign != 0) & (weight > 0) else zero
    return largest >= INFINITY


@kernel_helper
def _add_total(origin: Floats, total: Floats, factor: np.float32, changes: Bits) -> None:
    """Put origin + factor · total in place of the total, and choose where the product is not 0."""
    for i in range(total.size):
        product = np.float32(factor * total[i])
        changes[i] = product != 0
        total[i] = np.float32(origin[i] + product)


@kernel_helper
def _balance(total: Floats) -> Integer:
    balance = np.int32(0)
    for i in range(total.size):
        balance += np.int32(total[i] > 0) - np.int32(total[i] < 0)
    return np.int64(balance)
