"""Task vectors summed or elected on a device; see :mod:`patchc.kernels.votes`."""

import triton
import triton.language as tl

from patchc.kernels.device.words import (
    INFINITY,
    MAGNITUDE,
    from_fp32,
    load_words,
    to_fp32,
)

PLAIN = ("factor", "majority")
NO_FAULT = tl.constexpr(0x7FFFFFFF)


@triton.jit(do_not_specialize=PLAIN)
def merge_vectors(
    base,
    tuned,
    masks,
    scales,
    tally,
    result,
    count,
    majority: tl.int64,
    factor: tl.float32,
    BASE: tl.constexpr,
    TUNED: tl.constexpr,
    MODELS: tl.constexpr,
    ELECTS: tl.constexpr,
    COUNTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Merge a block of MODELS task vectors into ``result``, or with COUNTS only count signs.

    Args:
        tuned, masks: a row for each model.
        tally: int32, a column for each block: kept entries that are not zero, a row for each model;
            how many more sums are positive than negative; the first offset with a fault in an
            input, in a sum of an election, and in the result.
    """
    stride = tl.num_programs(0)
    tally += tl.program_id(0)
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < count
    before = load_words(base, offset, inside, BASE)
    origin = to_fp32(before, BASE)
    total = tl.zeros((BLOCK,), tl.float32)
    positive = tl.zeros((BLOCK,), tl.float32)
    negative = tl.zeros((BLOCK,), tl.float32)
    for_positive = tl.zeros((BLOCK,), tl.float32)
    for_negative = tl.zeros((BLOCK,), tl.float32)
    fault = tl.full((BLOCK,), NO_FAULT, tl.int64)
    for model in tl.static_range(MODELS):
        row = model * count.to(tl.int64)
        delta = to_fp32(load_words(tuned + row, offset, inside, TUNED), TUNED) - origin
        kept = tl.load(masks + row + offset, mask=inside, other=0) != 0
        fault = tl.where(inside & (_is_finite(delta) == 0), offset, fault)
        tl.store(tally + model * stride, tl.sum((kept & (delta != 0)).to(tl.int32)))
        scale = tl.load(scales + model)
        term = tl.where(kept, scale * delta, 0.0)
        total = total + term
        if ELECTS:
            positive = tl.where(term > 0, positive + term, positive)
            negative = tl.where(term < 0, negative + term, negative)
            for_positive = tl.where(term > 0, for_positive + scale, for_positive)
            for_negative = tl.where(term < 0, for_negative + scale, for_negative)
    tl.store(tally + (MODELS + 1) * stride, tl.min(fault).to(tl.int32))
    if COUNTS:
        balance = (total > 0).to(tl.int32) - (total < 0).to(tl.int32)
        tl.store(tally + MODELS * stride, tl.sum(balance))
    else:
        if ELECTS:
            worst = tl.min(tl.where(inside & (_is_finite(total) == 0), offset, NO_FAULT))
            tl.store(tally + (MODELS + 2) * stride, worst.to(tl.int32))
            up = (total > 0) | ((total == 0) & (majority > tl.zeros_like(offset)))
            down = (total < 0) | ((total == 0) & (majority < tl.zeros_like(offset)))
            total = tl.where(up, _mean(positive, for_positive), 0.0)
            total = tl.where(down, _mean(negative, for_negative), total)
        product = factor * total
        moves = product != 0
        after, rounds = from_fp32(origin + product, BASE)
        worst = tl.min(tl.where(inside & moves & (rounds == 0), offset, NO_FAULT))
        tl.store(tally + (MODELS + 3) * stride, worst.to(tl.int32))
        word = tl.where(moves & rounds, after, before)
        tl.store(result + offset, word.to(result.dtype.element_ty), mask=inside)


@triton.jit
def _mean(total, weight):
    return tl.where(weight > 0, tl.div_rn(total, tl.where(weight > 0, weight, 1.0)), 0.0)


@triton.jit
def _is_finite(value):
    return (value.to(tl.int32, bitcast=True) & MAGNITUDE) < INFINITY
