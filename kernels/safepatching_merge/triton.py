"""The fused selection and merge of a tile on a device.

A program takes one block, reads each input once, and only where it is needed, and leaves the
block's changes compacted at the block's own place; :func:`gather` closes the gaps.
"""

import triton
import triton.language as tl

from patchc.kernels.philox.triton import retained
from patchc.kernels.rounding.triton import (
    INFINITY,
    MAGNITUDE,
    from_fp32,
    load_words,
    step_between,
    to_fp32,
)
from patchc.kernels.topk.triton import block_of, membership

PLAIN = (
    *("first", "scale_a", "seed_a", "stream_a", "threshold_a"),
    *("scale_b", "seed_b", "stream_b", "threshold_b"),
)
NO_FAULT = tl.constexpr(0x7FFFFFFF)
TIES, CHANGES, TOPS, APPLIED, FAULTS, ROWS = (tl.constexpr(row) for row in (0, 2, 3, 6, 8, 11))


@triton.jit(do_not_specialize=PLAIN)
def select(
    base,
    tuned_a,
    tuned_b,
    top_a,
    top_b,
    cut_a,
    cut_b,
    ties_before,
    tally,
    positions,
    steps,
    least,
    count,
    first: tl.int64,
    scale_a: tl.float32,
    seed_a: tl.int64,
    stream_a: tl.int64,
    threshold_a: tl.int64,
    scale_b: tl.float32,
    seed_b: tl.int64,
    stream_b: tl.int64,
    threshold_b: tl.int64,
    BASE: tl.constexpr,
    TUNED_A: tl.constexpr,
    TUNED_B: tl.constexpr,
    MASKED_A: tl.constexpr,
    MASKED_B: tl.constexpr,
    DRAWN_A: tl.constexpr,
    DRAWN_B: tl.constexpr,
    COMPONENTS: tl.constexpr,
    SETS: tl.constexpr,
    RANK_ALL: tl.constexpr,
    LEAD: tl.constexpr,
    RESOLVE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Find a block's changes: components a and b (b where COMPONENTS is 2), as the package says.

    Args:
        top_a, top_b: scores as int32, or where MASKED the mask itself as int8.
        cut_a, cut_b, ties_before: as for :func:`patchc.kernels.topk.triton.mark`; ``ties_before``
            has a row for each component.
        tally: int32, ROWS rows, a column for each block: entries equal to each key, changes, sizes
            of the top sets and of their overlap, entries that each component is applied to, and the
            first faulty offset in each component and in the sums.
        positions, steps: as many as there are blocks times BLOCK.
        RESOLVE: take only blocks with entries on a divided key, once ``ties_before`` is known.
    """
    block = tl.program_id(0)
    stride = tl.num_programs(0)
    tally += block
    before_a = 0
    before_b = 0
    again = True
    if RESOLVE:
        again = tl.load(tally) > 0
        if not MASKED_A:
            again = again & (tl.load(cut_a + 1) != tl.load(cut_a + 2))
            before_a = tl.load(ties_before + block)
        if COMPONENTS == 2 and not MASKED_B:
            divided = tl.load(cut_b + 1) != tl.load(cut_b + 2)
            again = again | (divided & (tl.load(tally + stride) > 0))
            before_b = tl.load(ties_before + stride + block)
    if again:
        offset, inside, first_block = block_of(first, count, LEAD, BLOCK)
        drawn_a = inside & retained(seed_a, stream_a, threshold_a, first_block, DRAWN_A, BLOCK)
        in_a, ties = _top(
            top_a, cut_a, before_a, offset, inside, drawn_a, MASKED_A, RANK_ALL, RESOLVE
        )
        tl.store(tally + (TIES + 0) * stride, ties)
        tl.store(tally + TOPS * stride, tl.sum(in_a.to(tl.int32)))
        if COMPONENTS == 2:
            drawn_b = inside & retained(seed_b, stream_b, threshold_b, first_block, DRAWN_B, BLOCK)
            in_b, ties = _top(
                top_b, cut_b, before_b, offset, inside, drawn_b, MASKED_B, RANK_ALL, RESOLVE
            )
            tl.store(tally + (TIES + 1) * stride, ties)
            tl.store(tally + (TOPS + 1) * stride, tl.sum(in_b.to(tl.int32)))
            overlap = in_a & in_b
            tl.store(tally + (TOPS + 2) * stride, tl.sum(overlap.to(tl.int32)))
            if SETS == "difference":
                in_a = in_a & (overlap == 0)
                in_b = in_b & (overlap == 0)
            elif SETS == "intersection":
                in_a = overlap
                in_b = overlap
            in_b = in_b & drawn_b
        in_a = in_a & drawn_a
        either = in_a
        if COMPONENTS == 2:
            either = in_a | in_b
        before = load_words(base, offset, either, BASE)
        origin = to_fp32(before, BASE)
        merged, fault = _add(origin, origin, tuned_a, offset, in_a, scale_a, TUNED_A)
        tl.store(tally + FAULTS * stride, fault)
        tl.store(tally + APPLIED * stride, tl.sum(in_a.to(tl.int32)))
        if COMPONENTS == 2:
            merged, fault = _add(merged, origin, tuned_b, offset, in_b, scale_b, TUNED_B)
            tl.store(tally + (FAULTS + 1) * stride, fault)
            tl.store(tally + (APPLIED + 1) * stride, tl.sum(in_b.to(tl.int32)))
        after, fits = from_fp32(merged, BASE)
        fault = tl.min(tl.where(either & (fits == 0), offset, NO_FAULT).to(tl.int32))
        tl.store(tally + (FAULTS + 2) * stride, fault)
        step = step_between(before, after, BASE)
        changed = either & ((step >= least) | (step <= -least))
        rank = tl.cumsum(changed.to(tl.int32), 0) - 1
        tl.store(tally + CHANGES * stride, tl.sum(changed.to(tl.int32)))
        place = block.to(tl.int64) * BLOCK + rank
        tl.store(positions + place, offset.to(tl.int32), mask=changed)
        tl.store(steps + place, step, mask=changed)


@triton.jit
def _top(
    top,
    cut,
    before,
    offset,
    inside,
    drawn,
    MASKED: tl.constexpr,
    RANK_ALL: tl.constexpr,
    RESOLVE: tl.constexpr,
):
    if MASKED:
        member = tl.load(top + offset, mask=inside, other=0) != 0
        ties = 0
    else:
        ranked = drawn
        if RANK_ALL:
            ranked = inside
        bits = tl.load(top + offset, mask=inside, other=0)
        member, ties = membership(bits, ranked, cut, before, RESOLVE)
    return member, ties


@triton.jit
def _add(merged, origin, tuned, offset, applied, scale, TUNED: tl.constexpr):
    """Add scale · (tuned − origin) where it applies; and the first offset that is not finite."""
    target = to_fp32(load_words(tuned, offset, applied, TUNED), TUNED)
    finite = _is_finite(origin) & _is_finite(target)
    fault = tl.min(tl.where(applied & (finite == 0), offset, NO_FAULT).to(tl.int32))
    product = scale * (target - origin)
    return tl.where(applied, merged + product, merged), fault


@triton.jit
def _is_finite(value):
    return (value.to(tl.int32, bitcast=True) & MAGNITUDE) < INFINITY


@triton.jit
def gather(staged_positions, staged_steps, ends, positions, steps, BLOCK: tl.constexpr):
    """Move each block's changes to where those of the blocks before end."""
    block = tl.program_id(0).to(tl.int64)
    end = tl.load(ends + block)
    start = tl.load(ends + block - 1, mask=block > 0, other=0)
    rank = tl.arange(0, BLOCK)
    mask = rank < end - start
    source = block * BLOCK + rank
    tl.store(positions + start + rank, tl.load(staged_positions + source, mask=mask), mask=mask)
    tl.store(steps + start + rank, tl.load(staged_steps + source, mask=mask), mask=mask)
