"""Small floats to fp32 and back, and steps between words, on integer bits, on a device.

As :mod:`patchc.kernels.rounding.cpu` and :mod:`patchc.kernels.ulp_steps.cpu` define them. Words
are int32 with the word in the low bits and zeros above. CODE is a dtype's code.
"""

import triton
import triton.language as tl

from patchc.dtypes import BY_NAME

F32 = tl.constexpr(BY_NAME["F32"].code)
F16 = tl.constexpr(BY_NAME["F16"].code)
BF16 = tl.constexpr(BY_NAME["BF16"].code)
E4M3 = tl.constexpr(BY_NAME["F8_E4M3"].code)
INFINITY = tl.constexpr(0x7F800000)
MAGNITUDE = tl.constexpr(0x7FFFFFFF)


@triton.jit
def load_words(words, offset, mask, CODE: tl.constexpr):
    """The masked words at ``words`` + ``offset``, a pointer to signed integers; 0 elsewhere."""
    word = tl.load(words + offset, mask=mask, other=0).to(tl.int32)
    if CODE == F16 or CODE == BF16:
        word = word & 0xFFFF
    elif CODE != F32:
        word = word & 0xFF
    return word


@triton.jit
def to_fp32(word, CODE: tl.constexpr):
    """The fp32 value of a word; every finite value converts exactly, the rest to NaN or ±∞."""
    if CODE == F32:
        value = word.to(tl.float32, bitcast=True)
    elif CODE == BF16:
        value = (word << 16).to(tl.float32, bitcast=True)
    elif CODE == F16:
        value = _widen(word, 10, 15, 0x7BFF, 15)
    elif CODE == E4M3:
        value = _widen(word, 3, 7, 0x7E, 7)
    else:
        value = _widen(word, 2, 15, 0x7B, 7)
    return value


@triton.jit
def _widen(
    word, MANTISSA: tl.constexpr, BIAS: tl.constexpr, LARGEST: tl.constexpr, SIGN: tl.constexpr
):
    magnitude = word & ((1 << SIGN) - 1)
    normal = (magnitude << (23 - MANTISSA)) + ((127 - BIAS) << 23)
    whole = magnitude.to(tl.float32).to(tl.int32, bitcast=True)
    small = tl.where(magnitude == 0, 0, whole - ((BIAS - 1 + MANTISSA) << 23))
    bits = tl.where(magnitude >> MANTISSA == 0, small, normal)
    bits = tl.where(magnitude > LARGEST, INFINITY | (magnitude & ((1 << MANTISSA) - 1)), bits)
    return (bits | ((word >> SIGN) << 31)).to(tl.float32, bitcast=True)


@triton.jit
def from_fp32(value, CODE: tl.constexpr):
    """Round fp32 values to the nearest words, ties to even.

    Returns:
        The words, and where they hold: not where a value is not finite or overflows.
    """
    if CODE == F32:
        word = value.to(tl.int32, bitcast=True)
        fits = (word & MAGNITUDE) < INFINITY
    elif CODE == BF16:
        word, fits = _narrow(value, 7, 127, 0x7F7F, 15)
    elif CODE == F16:
        word, fits = _narrow(value, 10, 15, 0x7BFF, 15)
    elif CODE == E4M3:
        word, fits = _narrow(value, 3, 7, 0x7E, 7)
    else:
        word, fits = _narrow(value, 2, 15, 0x7B, 7)
    return word, fits


@triton.jit
def _narrow(
    value, MANTISSA: tl.constexpr, BIAS: tl.constexpr, LARGEST: tl.constexpr, SIGN: tl.constexpr
):
    bits = value.to(tl.int32, bitcast=True)
    magnitude = bits & MAGNITUDE
    dropped = 23 - MANTISSA
    rounded = _shift_to_even(magnitude, dropped) - ((127 - BIAS) << MANTISSA)
    if BIAS != 127:
        exponent = tl.maximum(magnitude >> 23, 1)
        below_normal = 128 - BIAS - exponent
        significand = (magnitude & 0x7FFFFF) | tl.where(magnitude >> 23 > 0, 0x800000, 0)
        shift = tl.minimum(dropped + tl.maximum(below_normal, 0), 30)
        rounded = tl.where(below_normal > 0, _shift_to_even(significand, shift), rounded)
    fits = (magnitude < INFINITY) & (rounded <= LARGEST)
    sign = ((bits >> 31) & 1) << SIGN
    return rounded | sign, fits


@triton.jit
def _shift_to_even(value, shift):
    """``value`` / 2^``shift``, ties to even; 0 ≤ ``value`` < 2³¹, 1 ≤ ``shift`` ≤ 30."""
    wide = value.to(tl.uint32)
    low = tl.zeros_like(wide) + shift
    half = (tl.full(wide.shape, 1, tl.uint32) << (low - 1)) - 1
    return ((wide + half + ((wide >> low) & 1)) >> low).to(tl.int32)


@triton.jit
def step_between(before, after, CODE: tl.constexpr):
    """The step from one float word to another on the total order, modulo the width, signed."""
    if CODE == F32:
        step = _ordered(after, 31) - _ordered(before, 31)
    elif CODE == F16 or CODE == BF16:
        step = ((_ordered(after, 15) - _ordered(before, 15)) << 16) >> 16
    else:
        step = ((_ordered(after, 7) - _ordered(before, 7)) << 24) >> 24
    return step


@triton.jit
def _ordered(word, SIGN: tl.constexpr):
    magnitude = word & ((1 << SIGN) - 1)
    return tl.where((word >> SIGN) & 1 != 0, -1 - magnitude, magnitude)
