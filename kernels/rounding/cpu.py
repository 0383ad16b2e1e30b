"""Small floats to fp32 and back, as compiled loops; see :mod:`patchc.kernels.rounding`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import BY_CODE, BY_NAME, Words
from patchc.jit import Integer, loop

_LAYOUT = {  # name: (mantissa bits, exponent bias, largest finite magnitude as bits)
    "F32": (23, 127, 0x7F7FFFFF),
    "F16": (10, 15, 0x7BFF),
    "BF16": (7, 127, 0x7F7F),
    "F8_E4M3": (3, 7, 0x7E),
    "F8_E5M2": (2, 15, 0x7B),
}
_CODES = max(BY_CODE) + 1
_MANTISSA, _BIAS, _LARGEST, _SIGN = np.zeros((4, _CODES), np.int64)
for _name, (_mantissa, _bias, _largest) in _LAYOUT.items():
    _code = BY_NAME[_name].code
    _MANTISSA[_code], _BIAS[_code], _LARGEST[_code] = _mantissa, _bias, _largest
    _SIGN[_code] = BY_NAME[_name].bits - 1

_FP32_INFINITY = 0x7F800000


@loop
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


@loop
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


@loop
def _subnormal_bits(magnitude: Integer, mantissa: Integer, bias: Integer) -> Integer:
    if magnitude == 0 or bias == 127:
        return magnitude << (23 - mantissa)
    value = np.float32(magnitude)
    bits = np.int64(value.view(np.uint32))
    return bits - ((bias - 1 + mantissa) << 23)


@loop
def _shift_to_even(value: Integer, shift: Integer) -> Integer:
    if shift == 0:
        return value
    half = (np.int64(1) << (shift - 1)) - 1
    return (value + half + ((value >> shift) & 1)) >> shift


@loop
def cast(words: Words, code: int, to_code: int, out: Words) -> None:
    """Cast ``words`` of the dtype ``code`` into ``out``, as long, of the dtype ``to_code``.

    A value that is not finite, or does not fit, becomes the word 0: steps are only taken from the
    outcome.
    """
    for i in range(words.size):
        word = from_fp32(to_fp32(np.int64(words[i]), code), to_code)
        out[i] = word if word > 0 else 0


@loop
def load_fp32(words: Words, code: int, mask: NDArray[np.bool_], out: NDArray[np.float32]) -> None:
    """Convert the masked words to fp32; other entries of ``out`` stay as they are."""
    for i in range(words.size):
        if mask[i]:
            out[i] = to_fp32(np.int64(words[i]), code)


@loop
def round_masked(
    base: Words, code: int, mask: NDArray[np.bool_], merged: NDArray[np.float32], result: Words
) -> int:
    """Write ``merged``, rounded to the base's dtype, where ``mask`` is set, and ``base`` elsewhere.

    Returns:
        The first masked position whose value is not finite or overflows the dtype, or −1.
    """
    for i in range(base.size):
        result[i] = base[i]
        if mask[i]:
            word = from_fp32(merged[i], code)
            if word < 0:
                return i
            result[i] = word
    return -1
