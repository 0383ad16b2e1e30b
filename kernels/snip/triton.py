"""Accumulation of SNIP scores on a device; see :mod:`patchc.kernels.snip`."""

import triton
import triton.language as tl

from patchc.kernels.rounding.triton import load_words, to_fp32


@triton.jit
def add_scores(
    scores,
    gradients,
    weights,
    count,
    GRADIENTS: tl.constexpr,
    WEIGHTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add |weight · gradient| to each score, or |gradient| where WEIGHTS is 0."""
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offset < count
    value = to_fp32(load_words(gradients, offset, mask, GRADIENTS), GRADIENTS)
    if WEIGHTS != 0:
        value = to_fp32(load_words(weights, offset, mask, WEIGHTS), WEIGHTS) * value
    score = tl.load(scores + offset, mask=mask, other=0.0)
    tl.store(scores + offset, score + tl.abs(value), mask=mask)
