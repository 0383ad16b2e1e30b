"""Small floats to fp32 and back against ml_dtypes: every word, and around every halfway point."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from arithmetic_vectors import ROUNDINGS
from numpy.typing import NDArray

from patchc.dtypes import BY_NAME
from patchc.kernels.rounding.cpu import from_fp32, load_fp32, round_masked

FORMATS = {
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def _every_word(dtype: np.dtype) -> NDArray:
    words = WORDS[dtype.itemsize]
    return np.arange(2 ** (8 * dtype.itemsize), dtype=np.uint32).astype(words)


def _finite_values(name: str) -> NDArray[np.float32]:
    """Every finite value of a format, ascending, without −0."""
    values = _every_word(FORMATS[name]).view(FORMATS[name]).astype(np.float32)
    return np.unique(values[np.isfinite(values)])


def _round(name: str, values: NDArray[np.float32]) -> NDArray:
    """The kernel's words; every value must be in range."""
    words = WORDS[FORMATS[name].itemsize]
    poison = np.full(values.size, 0x5A, words)
    mask = np.ones(values.size, np.bool_)
    code = BY_NAME[name].code
    assert round_masked(np.zeros(values.size, words), code, mask, values, poison) == -1
    return poison


def _check_rounding(name: str, values: NDArray[np.float32]) -> None:
    """In range, the kernel equals ml_dtypes; out of range, it refuses."""
    with np.errstate(over="ignore", invalid="ignore"):
        expected = values.astype(FORMATS[name])
        in_range = np.isfinite(expected.astype(np.float32))
    inside = np.ascontiguousarray(values[in_range])
    words = WORDS[FORMATS[name].itemsize]
    assert np.array_equal(_round(name, inside), expected[in_range].view(words))
    code = BY_NAME[name].code
    assert {from_fp32(value, code) for value in values[~in_range]} <= {-1}


@pytest.mark.parametrize("name", FORMATS)
def test_every_word_to_fp32_equals_ml_dtypes(name: str) -> None:
    words = _every_word(FORMATS[name])
    expected = words.view(FORMATS[name]).astype(np.float32)
    found = np.full(words.size, -12345.0, np.float32)
    load_fp32(words, BY_NAME[name].code, np.ones(words.size, np.bool_), found)
    numbers = ~np.isnan(expected)
    assert np.array_equal(found[numbers].view(np.uint32), expected[numbers].view(np.uint32))
    assert np.isnan(found[~numbers]).all()


@pytest.mark.parametrize("name", FORMATS)
def test_every_finite_word_survives_the_round_trip(name: str) -> None:
    words = _every_word(FORMATS[name])
    values = words.view(FORMATS[name]).astype(np.float32)
    finite = np.isfinite(values)
    assert np.array_equal(_round(name, values[finite]), words[finite])


@pytest.mark.parametrize("name", FORMATS)
def test_halfway_points_and_their_neighbours(name: str) -> None:
    """Between every two adjacent values, subnormals included, and one fp32 step to each side."""
    values = _finite_values(name)
    with np.errstate(over="ignore"):
        half = (values[:-1] + (values[1:] - values[:-1]) / np.float32(2)).astype(np.float32)
        around = [half, np.nextafter(half, np.float32(np.inf)), np.nextafter(half, -half)]
    _check_rounding(name, np.concatenate(around))


@pytest.mark.parametrize("name", FORMATS)
def test_random_fp32_bit_patterns_round_as_by_ml_dtypes(name: str) -> None:
    bits = np.random.default_rng(5).integers(0, 2**32, 20000, dtype=np.uint32)
    values = bits.view(np.float32)
    scaled = np.random.default_rng(6).normal(size=20000).astype(np.float32)
    tiny = np.float32(2.0) ** np.arange(-149, 128, dtype=np.float32)
    _check_rounding(name, np.concatenate([values[np.isfinite(values)], scaled, tiny, -tiny]))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("sign", [1, -1])
def test_first_overflow_is_refused(name: str, sign: int) -> None:
    """The last value that rounds to the largest finite word, and the next one."""
    largest = float(_finite_values(name)[-1])
    below = float(_finite_values(name)[-2])
    border = np.float32(largest + (largest - below) / 2)
    # E4M3's largest word is even, so the tie itself still rounds down to it.
    last = border if name == "F8_E4M3" else np.nextafter(border, np.float32(0))
    code = BY_NAME[name].code
    assert from_fp32(np.float32(sign * last), code) >= 0
    assert from_fp32(np.nextafter(np.float32(sign * last), np.float32(sign * np.inf)), code) == -1


@pytest.mark.parametrize("name", [*FORMATS, "F32"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_not_finite_is_refused(name: str, value: float) -> None:
    assert from_fp32(np.float32(value), BY_NAME[name].code) == -1


@pytest.mark.parametrize("name", [*FORMATS, "F32"])
def test_zeros_keep_their_sign(name: str) -> None:
    code = BY_NAME[name].code
    assert from_fp32(np.float32(0.0), code) == 0
    assert from_fp32(np.float32(-0.0), code) == 1 << (BY_NAME[name].bits - 1)


def test_fp32_passes_through() -> None:
    bits = np.random.default_rng(7).integers(0, 2**32, 20000, dtype=np.uint32)
    bits = np.concatenate([bits, np.array([0, 1, 0x007FFFFF, 0x80000001], np.uint32)])
    finite = bits[np.isfinite(bits.view(np.float32))]
    code = BY_NAME["F32"].code
    result = np.full(finite.size, 0x7FC00000, np.uint32)
    mask = np.ones(finite.size, np.bool_)
    assert round_masked(finite, code, mask, finite.view(np.float32), result) == -1
    assert np.array_equal(result, finite)
    loaded = np.full(finite.size, np.nan, np.float32)
    load_fp32(finite, code, mask, loaded)
    assert np.array_equal(loaded.view(np.uint32), finite)


@pytest.mark.parametrize(("name", "bits", "word"), ROUNDINGS)
def test_roundings_equal_the_golden_ones(name: str, bits: int, word: int) -> None:
    value = np.array([bits], np.uint32).view(np.float32)[0]
    assert from_fp32(value, BY_NAME[name].code) == word
