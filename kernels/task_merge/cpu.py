"""The merge of any number of task vectors, in one pass over the weights; compiled loops.

The arithmetic is that of ``reference.py``. A loop here only says that some value is at fault; the
reference finds the first one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.jit import Integer, loop
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
    round_chosen,
)


@loop
def magnitudes(
    base: Words, code: int, tuned: Words, tuned_code: int, out: Bits, tiles: Floats
) -> bool:
    """Write |tuned − base| into ``out``, as the bits of fp32 values.

    Returns:
        Whether a value of either or a difference is not finite.
    """
    largest = np.uint32(0)
    for start in range(0, base.size, TILE):
        end = min(start + TILE, base.size)
        origin, bits = tiles[0, : end - start], out[start:end]
        convert(base[start:end], code, origin)
        convert(tuned[start:end], tuned_code, bits.view(np.float32))
        largest = max(largest, _subtract(bits.view(np.float32), origin))
        for i in range(bits.size):
            bits[i] &= MAGNITUDE
    return bool(largest >= INFINITY)


@loop
def merge_task_vectors(
    base: Words,
    code: int,
    tuned: Rows,
    codes: NDArray[np.int64],
    masks: Bitmask,
    scales: Floats,
    elects: bool,
    majority: int,
    total_scale: np.float32,
    result: Words,
    selected: NDArray[np.int64],
    tiles: Floats,
) -> bool:
    """Write base + total_scale · Σ scale · (tuned − base), rounded to the base's dtype.

    With an election, the weighted mean of the terms that agree with the sign of their sum takes
    the sum's place. Where nothing is added the base's word stays as it is.

    Args:
        base, code: the base's words and their dtype.
        tuned, codes: the words of each model, one row of bytes each, and their dtypes.
        masks: the entries that are selected, one row a model; zero deltas never are.
        scales: one for each model; its weight, and not negative, in an election.
        elects: whether there is an election.
        majority: its sign stands in for that of a sum that is exactly zero.
        total_scale: λ.
        result: as long as ``base``; overwritten.
        selected: the number of each model's selected entries is added.
        tiles: to compute in (:func:`patchc.kernels.tiles.new_tiles`).

    Returns:
        Whether a value is not finite, of the base, of a model or of a difference, selected or not,
        or of the outcome, or overflows the dtype; the result is of no use then.
    """
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
            expand(masks[model, start >> 5 : (end + 31) >> 5], chosen)
            selected[model] += _drop_zeros(delta, takes)
            if elects:
                _add_term(delta, takes, scales[model], total)
                _add_votes(delta, True, scales[model], above, above_weight)
                _add_votes(delta, False, scales[model], below, below_weight)
            else:
                _add(delta, takes, scales[model], total)
        if elects:
            faulty |= _elect(total, above, above_weight, below, below_weight, majority)
        _add_total(origin, total, total_scale, takes)
        faulty |= round_chosen(words, code, total, takes, result[start:end])
    return bool(faulty or largest >= INFINITY)


@loop
def count_signs(
    base: Words,
    code: int,
    tuned: Rows,
    codes: NDArray[np.int64],
    masks: Bitmask,
    scales: Floats,
    tiles: Floats,
) -> int:
    """How many more sums of selected terms are positive than negative."""
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
            expand(masks[model, start >> 5 : (end + 31) >> 5], chosen)
            _drop_zeros(delta, takes)
            _add(delta, takes, scales[model], total)
        balance += _balance(total)
    return balance


@loop
def _subtract(values: Floats, origin: Floats) -> np.uint32:
    """Subtract in place, and give the largest magnitude of the differences' bits."""
    bits = values.view(np.uint32)
    largest = np.uint32(0)
    for i in range(origin.size):
        values[i] = np.float32(values[i] - origin[i])
        largest = max(largest, bits[i] & MAGNITUDE)
    return largest


@loop
def _drop_zeros(delta: Floats, takes: Bits) -> Integer:
    """Leave out zero deltas, and count the others that are chosen."""
    count = np.uint32(0)
    for i in range(delta.size):
        taken = (takes[i] != 0) & (delta[i] != 0)
        takes[i] = taken
        count += np.uint32(taken)
    return np.int64(count)


@loop
def _add(delta: Floats, takes: Bits, scale: np.float32, total: Floats) -> None:
    for i in range(delta.size):
        added = np.float32(total[i] + np.float32(scale * delta[i]))
        total[i] = added if takes[i] else total[i]


@loop
def _add_term(delta: Floats, takes: Bits, weight: np.float32, total: Floats) -> None:
    """As :func:`_add`, and leave the terms in place of the deltas."""
    for i in range(delta.size):
        term = np.float32(weight * delta[i]) if takes[i] else np.float32(0)
        delta[i] = term
        total[i] = np.float32(total[i] + term)


@loop
def _add_votes(
    terms: Floats, positive: bool, weight: np.float32, sums: Floats, weights: Floats
) -> None:
    """Add the terms of one sign, and the weight of each, to those of that side."""
    zero = np.float32(0)
    for i in range(terms.size):
        agrees = terms[i] > 0 if positive else terms[i] < 0
        sums[i] = np.float32(sums[i] + (terms[i] if agrees else zero))
        weights[i] = np.float32(weights[i] + (weight if agrees else zero))


@loop
def _elect(
    total: Floats,
    above: Floats,
    above_weight: Floats,
    below: Floats,
    below_weight: Floats,
    majority: int,
) -> Integer:
    """Replace each sum by the mean of the terms that agree; say whether a sum is not finite."""
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


@loop
def _add_total(origin: Floats, total: Floats, scale: np.float32, changes: Bits) -> None:
    """Put origin + scale · total in place of the total, and choose where the product is not 0."""
    for i in range(total.size):
        product = np.float32(scale * total[i])
        changes[i] = product != 0
        total[i] = np.float32(origin[i] + product)


@loop
def _balance(total: Floats) -> Integer:
    balance = np.int32(0)
    for i in range(total.size):
        balance += np.int32(total[i] > 0) - np.int32(total[i] < 0)
    return np.int64(balance)
