"""Retention draws on a device, see :mod:`patchc.kernels.philox`."""

import triton
import triton.language as tl

PLAIN = ("first", "seed", "stream", "threshold")
"""Kernel parameters that are int64 whatever their value, so that no value compiles anew."""


@triton.jit
def draws(seed, stream, first_block, QUARTER: tl.constexpr):
    """The draws of 4 · QUARTER flat indices from 4 · ``first_block`` on, in order, as uint32.

    The counter is four words of 32 bits: 64-bit words would select Philox4x64.
    """
    block = first_block + tl.arange(0, QUARTER)
    low = (block & 0xFFFFFFFF).to(tl.uint32)
    high = ((block >> 32) & 0xFFFFFFFF).to(tl.uint32)
    stream = stream.to(tl.int64)
    nothing = tl.zeros((QUARTER,), tl.uint32)
    stream_low = nothing + (stream & 0xFFFFFFFF).to(tl.uint32)
    stream_high = nothing + ((stream >> 32) & 0xFFFFFFFF).to(tl.uint32)
    a, b, c, d = tl.philox(seed.to(tl.int64), low, high, stream_low, stream_high)
    return tl.interleave(tl.interleave(a, c), tl.interleave(b, d))


@triton.jit
def retained(seed, stream, threshold, first_block, DRAWN: tl.constexpr, BLOCK: tl.constexpr):
    """Which of BLOCK flat indices from 4 · ``first_block`` on are retained; all if not DRAWN."""
    if DRAWN:
        limit = threshold.to(tl.uint32)
        drawn = draws(seed, stream, first_block, BLOCK // 4) < limit
    else:
        drawn = tl.full((BLOCK,), 1, tl.int1)
    return drawn
