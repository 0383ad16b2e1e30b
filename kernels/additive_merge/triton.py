"""Scaled deltas added in place on a device; see :mod:`patchc.kernels.additive_merge`."""

import triton
import triton.language as tl

from patchc.kernels.rounding.triton import from_fp32, load_words, to_fp32

PLAIN = ("scale_a", "scale_b")


@triton.jit(do_not_specialize=PLAIN)
def add_deltas(
    words,
    positions_a,
    deltas_a,
    saved_a,
    count_a,
    positions_b,
    deltas_b,
    saved_b,
    count_b,
    fault,
    scale_a: tl.float32,
    scale_b: tl.float32,
    WORDS: tl.constexpr,
    DELTAS: tl.constexpr,
    COMPONENTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add two components to ``words``, the sum rounded once; the first blocks take component a.

    A word that both touch is a's to write, so that no two programs write one word.
    """
    block = tl.program_id(0).to(tl.int64)
    blocks_a = (count_a + BLOCK - 1) // BLOCK
    if block < blocks_a:
        entry = block * BLOCK + tl.arange(0, BLOCK)
        mask = entry < count_a
        at = tl.load(positions_a + entry, mask=mask, other=0)
        before = load_words(words, at.to(tl.int64), mask, WORDS)
        value = _plus(to_fp32(before, WORDS), deltas_a, entry, mask, scale_a, DELTAS)
        if COMPONENTS == 2:
            place, both = _find(positions_b, count_b, at, mask)
            value = _plus(value, deltas_b, place, both, scale_b, DELTAS)
        _write(words, at, before, value, saved_a + entry, mask, fault, WORDS)
    elif COMPONENTS == 2:
        entry = (block - blocks_a) * BLOCK + tl.arange(0, BLOCK)
        mask = entry < count_b
        at = tl.load(positions_b + entry, mask=mask, other=0)
        _place, both = _find(positions_a, count_a, at, mask)
        mask = mask & (both == 0)
        before = load_words(words, at.to(tl.int64), mask, WORDS)
        value = _plus(to_fp32(before, WORDS), deltas_b, entry, mask, scale_b, DELTAS)
        _write(words, at, before, value, saved_b + entry, mask, fault, WORDS)


@triton.jit
def _plus(value, deltas, entry, mask, scale, DELTAS: tl.constexpr):
    product = scale * to_fp32(load_words(deltas, entry, mask, DELTAS), DELTAS)
    return tl.where(mask, value + product, value)


@triton.jit
def _find(positions, count, at, mask):
    """By bisection, where ``at`` is or would be among ascending positions, and whether it is."""
    low = tl.zeros_like(at)
    high = low + count
    for _ in range(32):
        open_ = mask & (low < high)
        middle = low + ((high - low) >> 1)
        below = tl.load(positions + middle, mask=open_, other=0) < at
        low = tl.where(open_ & below, middle + 1, low)
        high = tl.where(open_ & (below == 0), middle, high)
    inside = mask & (low < count)
    return low, inside & (tl.load(positions + low, mask=inside, other=0) == at)


@triton.jit
def _write(words, at, before, value, saved, mask, fault, WORDS: tl.constexpr):
    """Keep the word that was there, and write the rounded value unless it does not fit."""
    word, fits = from_fp32(value, WORDS)
    tl.store(saved, before.to(saved.dtype.element_ty), mask=mask)
    tl.store(words + at.to(tl.int64), word.to(words.dtype.element_ty), mask=mask & fits)
    worst = tl.min(tl.where(mask & (fits == 0), at, 0x7FFFFFFF))
    tl.atomic_min(fault, worst, mask=worst < 0x7FFFFFFF, sem="relaxed")


@triton.jit
def put_back(words, positions, saved, count, BLOCK: tl.constexpr):
    """Write saved words back to their positions."""
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = entry < count
    at = tl.load(positions + entry, mask=mask, other=0).to(tl.int64)
    tl.store(words + at, tl.load(saved + entry, mask=mask, other=0), mask=mask)
