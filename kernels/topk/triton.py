"""Radix select on a device; see :mod:`patchc.kernels.topk`.

The key of a score is its bits without the sign. ``scores`` points to fp32 scores as int32; entry
``offset`` of a tile has flat index ``first`` + ``offset``, and LEAD is ``first`` modulo 4, so that
four draws of one Philox block stay together. A cut is three int64: key, ties, available ties.
"""

import triton
import triton.language as tl

from patchc.kernels.philox.triton import PLAIN, retained

LOW_BITS = tl.constexpr(15)
HIGH_BINS = tl.constexpr(1 << 16)
LOW_BINS = tl.constexpr(1 << 15)
KEY = tl.constexpr(0x7FFFFFFF)
LARGEST_FINITE = tl.constexpr(0x7F7FFFFF)
NEGATIVE_ZERO = tl.constexpr(-0x80000000)
FAR = tl.constexpr(1 << 62)


@triton.jit
def block_of(first, count, LEAD: tl.constexpr, BLOCK: tl.constexpr):
    """A program's entries: their offsets, which of them exist, and the first Philox block."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offset = start + tl.arange(0, BLOCK) - LEAD
    return offset, (offset >= 0) & (offset < count), (first - LEAD + start) >> 2


@triton.jit(do_not_specialize=PLAIN)
def count_halves(
    scores,
    high,
    bins,
    fault,
    first: tl.int64,
    count,
    seed: tl.int64,
    stream: tl.int64,
    threshold: tl.int64,
    LEAD: tl.constexpr,
    DRAWN: tl.constexpr,
    LOWER: tl.constexpr,
    REPLICAS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the upper key halves of retained entries to one of REPLICAS sets of bins.

    With LOWER, the lower halves of those whose upper half is ``high``. Without it, ``fault``
    becomes the least flat index of a score that is negative or not finite.

    Zeros, which can be most of a tensor, are counted by the block, not one by one. Programs share
    the sets of bins, so that a full bin is not waited for by all of them.
    """
    offset, inside, first_block = block_of(first, count, LEAD, BLOCK)
    bits = tl.load(scores + offset, mask=inside, other=0)
    key = bits & KEY
    ranked = inside & retained(seed, stream, threshold, first_block, DRAWN, BLOCK)
    mine = bins + (tl.program_id(0) % REPLICAS).to(tl.int64) * (LOW_BINS if LOWER else HIGH_BINS)
    digit = key >> LOW_BITS
    if LOWER:
        ranked = ranked & (digit == tl.load(high).to(tl.int32))
        digit = key & (LOW_BINS - 1)
    else:
        _note_fault(fault, bits, inside, first + offset)
    zeros = tl.sum((ranked & (digit == 0)).to(tl.int64))
    tl.atomic_add(mine, zeros, mask=zeros > 0, sem="relaxed")
    one = tl.full(digit.shape, 1, tl.int64)
    tl.atomic_add(mine + digit, one, mask=ranked & (digit != 0), sem="relaxed")


@triton.jit
def _note_fault(fault, bits, inside, index):
    bad = (bits & KEY > LARGEST_FINITE) | ((bits < 0) & (bits != NEGATIVE_ZERO))
    worst = tl.min(tl.where(bad & inside, index, FAR))
    tl.atomic_min(fault, worst, mask=worst < FAR, sem="relaxed")


@triton.jit
def membership(bits, ranked, cut, before, RESOLVE: tl.constexpr):
    """Which of a block's ranked entries are in the top set, and how many equal its key.

    Without RESOLVE, entries equal to the key are in if all of them are. With it, those are in that
    have fewer than ``ties`` before them, ``before`` of these in earlier blocks.
    """
    key = (bits & KEY).to(tl.int64)
    top = tl.load(cut)
    ties = tl.load(cut + 1)
    equal = ranked & (key == top)
    if RESOLVE:
        rank = tl.cumsum(equal.to(tl.int32), 0) - 1 + before
    else:
        rank = tl.zeros_like(key) + tl.where(ties == tl.load(cut + 2), ties - 1, ties)
    return (ranked & (key > top)) | (equal & (rank < ties)), tl.sum(equal.to(tl.int32))


@triton.jit(do_not_specialize=PLAIN)
def mark(
    scores,
    cut,
    ties_in_block,
    ties_before,
    mask,
    first: tl.int64,
    count,
    seed: tl.int64,
    stream: tl.int64,
    threshold: tl.int64,
    LEAD: tl.constexpr,
    DRAWN: tl.constexpr,
    RESOLVE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the top set's mask; with RESOLVE, again for blocks with entries on a divided key."""
    block = tl.program_id(0)
    again = True
    before = 0
    if RESOLVE:
        before = tl.load(ties_before + block)
        divided = tl.load(cut + 1) != tl.load(cut + 2)
        again = divided & (tl.load(ties_in_block + block) > 0)
    if again:
        offset, inside, first_block = block_of(first, count, LEAD, BLOCK)
        bits = tl.load(scores + offset, mask=inside, other=0)
        ranked = inside & retained(seed, stream, threshold, first_block, DRAWN, BLOCK)
        member, ties = membership(bits, ranked, cut, before, RESOLVE)
        tl.store(mask + offset, member.to(tl.int8), mask=inside)
        if not RESOLVE:
            tl.store(ties_in_block + block, ties)


@triton.jit(do_not_specialize=PLAIN)
def mark_rows(
    scores,
    mask,
    fault,
    first: tl.int64,
    length,
    taken,
    seed: tl.int64,
    stream: tl.int64,
    threshold: tl.int64,
    DRAWN: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the mask of the top ``taken`` retained entries of a row, one program a row.

    TILES times BLOCK entries hold a row, and the up to 3 before it that share its first draws.
    Four passes over the row, by 8 bits of the key each, while it lies in the cache.
    """
    start = tl.program_id(0).to(tl.int64) * length
    lead = ((first + start) & 3).to(tl.int32)
    block = (first + start) >> 2
    prefix = 0
    left = taken
    for digit in tl.static_range(4):
        shift = 24 - 8 * digit
        counts = tl.zeros((256,), tl.int32)
        for tile in range(0, TILES * BLOCK, BLOCK):
            at = tile + tl.arange(0, BLOCK) - lead
            inside = (at >= 0) & (at < length)
            bits = tl.load(scores + start + at, mask=inside, other=0)
            key = bits & KEY
            if digit == 0:
                _note_fault(fault, bits, inside, first + start + at)
            here = inside & retained(seed, stream, threshold, block + tile // 4, DRAWN, BLOCK)
            if digit > 0:
                here = here & (key >> (shift + 8) == prefix)
            counts += tl.histogram((key >> shift) & 255, 256, mask=here)
        if digit == 0:
            left = tl.minimum(taken, tl.sum(counts))
        chosen, above = _digit(counts, left, 127 if digit == 0 else 255)
        left -= above
        prefix = (prefix << 8) | chosen
    seen = 0
    for tile in range(0, TILES * BLOCK, BLOCK):
        at = tile + tl.arange(0, BLOCK) - lead
        inside = (at >= 0) & (at < length)
        key = tl.load(scores + start + at, mask=inside, other=0) & KEY
        ranked = inside & retained(seed, stream, threshold, block + tile // 4, DRAWN, BLOCK)
        equal = ranked & (key == prefix)
        rank = tl.cumsum(equal.to(tl.int32), 0) - 1 + seen
        member = (ranked & (key > prefix)) | (equal & (rank < left))
        tl.store(mask + start + at, member.to(tl.int8), mask=inside)
        seen += tl.sum(equal.to(tl.int32))


@triton.jit
def _digit(counts, left, NONE: tl.constexpr):
    """The bin that holds the ``left``-th largest digit, and how many digits lie in those above.

    NONE where ``left`` is 0: the digit of a key that no finite score has.
    """
    above = tl.sum(counts) - tl.cumsum(counts, 0)
    bins = tl.arange(0, 256)
    chosen = tl.max(tl.where((above < left) & (above + counts >= left), bins, -1))
    chosen = tl.where(chosen < 0, NONE, chosen)
    return chosen, tl.sum(tl.where(bins == chosen, above, 0))
