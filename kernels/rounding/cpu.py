"""Small floats to fp32 and back, on integer bits: the same result on every backend.

Casts are not portable (some backends truncate), so the rounding to nearest, ties to even, is done
by integer arithmetic here and in every other backend. A format is named by its dtype code (see
:mod:`patchc.dtypes`); F32, F16, BF16, F8_E4M3 and F8_E5M2 are known.
"""

from __future__ import annotations

import numpy as np

from patchc.dtypes import BY_CODE, BY_NAME
from patchc.jit import Integer, inlined

_LAYOUT = {  # name: (mantissa bits, exponent bias, largest finite magnitude as bits)
    "F32": (23, 127, 0x7F7FFFFF),
    "F16": (10, 15, 0x7BFF),
    "BF16": (7, 127, 0x7F7F),
    "F8_E4M3": (3, 7, 0x7E),
    "F8_E5M2": (2, 15, 0x7B),
}
_CODES = max(BY_CODE) + 1
_MANTISSA = np.zeros(_CODES, np.int64)
_BIAS = np.zeros(_CODES, np.int64)
_LARGEST = np.zeros(_CODES, np.int64)
_SIGN = np.zeros(_CODES, np.int64)
for _name, (_mantissa, _bias, _largest) in _LAYOUT.items():
    _code = BY_NAME[_name].code
    _MANTISSA[_code], _BIAS[_code], _LARGEST[_code] = _mantissa, _bias, _largest
    _SIGN[_code] = BY_NAME[_name].bits - 1

_FP32_INFINITY = 0x7F800000


@inlined
def to_fp32(word: Integer, code: Integer) -> np.float32:
    """The fp32 value of a word; every finite value converts exactly, the rest becomes NaN or ±∞."""
    mantissa = _MANTISSA[code]
    magnitude = np.int64(word) & ((np.int64(1) << _SIGN[code]) - 1)
    sign = (np.int64(word) >> _SIGN[code]) << 31
    if magnitude > _LARGEST[code]:
        bits = np.int64(_FP32_INFINITY) | (magnitude & ((np.int64(1) << mantissa) - 1))
    elif magnitude >> mantissa:
        bits = (magnitude << (23 - mantissa)) + ((127 - _BIAS[code]) << 23)
    else:
        bits = _subnormal_bits(magnitude, mantissa, _BIAS[code])
    return np.uint32(bits | sign).view(np.float32)


@inlined
def from_fp32(value: np.float32, code: Integer) -> Integer:
    """Round an fp32 value to the nearest word of a format, ties to even.

    Returns:
        The word, or −1 where the value is not finite or overflows the format.
    """
    mantissa = _MANTISSA[code]
    bits = np.int64(np.float32(value).view(np.uint32))
    magnitude = bits & 0x7FFFFFFF
    if magnitude >= _FP32_INFINITY:
        return np.int64(-1)
    exponent = max(magnitude >> 23, np.int64(1))
    below_normal = 128 - _BIAS[code] - exponent
    shift = 23 - mantissa
    if below_normal > 0:
        significand = magnitude & 0x7FFFFF
        if magnitude >> 23:
            significand |= 0x800000
        rounded = _shift_to_even(significand, min(shift + below_normal, np.int64(40)))
    else:
        rounded = _shift_to_even(magnitude, shift) - ((127 - _BIAS[code]) << mantissa)
    if rounded > _LARGEST[code]:
        return np.int64(-1)
    return rounded | ((bits >> 31) << _SIGN[code])


@inlined
def _subnormal_bits(magnitude: Integer, mantissa: Integer, bias: Integer) -> Integer:
    if magnitude == 0 or bias == 127:
        return magnitude << (23 - mantissa)
    value = np.float32(magnitude)
    bits = np.int64(value.view(np.uint32))
    return bits - ((bias - 1 + mantissa) << 23)


@inlined
def _shift_to_even(value: Integer, shift: Integer) -> Integer:
    if shift == 0:
        return value
    half = (np.int64(1) << (shift - 1)) - 1
    return (value + half + ((value >> shift) & 1)) >> shift
