"""Stored deltas against ml_dtypes and against exact fractions rounded by hand."""

from __future__ import annotations

import struct
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from patchc.kernels.additive_merge.cpu import add_scaled_entries
from patchc.kernels.delta_values import first_not_finite, from_bf16, from_int8, to_bf16, to_int8

LARGEST = float(np.finfo(np.float32).max)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
small = st.floats(-1, 1, width=32)


def fp32(value: Fraction) -> Fraction:
    """An exact number rounded to fp32, ties to even, subnormals included; no overflow."""
    if not value:
        return value
    magnitude = abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** (max(exponent, -126) - 23)
    return Fraction(round(value / unit)) * unit


def test_the_oracle_rounds_as_the_machine_does() -> None:
    for value in (1 / 3, 1e-40, 1.5e-45, -0.1, 3.4e38, 2**-149 * 1.5):
        assert float(fp32(Fraction(value))) == struct.unpack("<f", struct.pack("<f", value))[0]


@given(st.lists(finite, min_size=1, max_size=50))
@example([1e-45, -1e-45, 2.0**-133, 0.0, -0.0])
def test_bf16_equals_ml_dtypes(values: list[float]) -> None:
    deltas = np.array(values, np.float32)
    wanted = deltas.astype(ml_dtypes.bfloat16)
    words = np.full(len(values), 0x5A5A, np.uint16)
    fault = to_bf16(deltas, words)
    infinite = np.flatnonzero(np.isinf(wanted.astype(np.float32)))
    if len(infinite):
        assert fault == infinite[0]
        return
    assert fault == -1
    np.testing.assert_array_equal(words, wanted.view(np.uint16))
    back = np.full(len(values), np.nan, np.float32)
    from_bf16(words, back)
    np.testing.assert_array_equal(back.view(np.uint32), wanted.astype(np.float32).view(np.uint32))


@given(st.lists(small.filter(bool), min_size=1, max_size=600))
@example([1.0, 0.5 / 127, 1.5 / 127, 2.5 / 127, -0.5 / 127])
@example([1e-45] * 257)
@example([2.0**-126, 2.0**-149])
def test_int8_equals_exact_fractions(values: list[float]) -> None:
    deltas = np.array(values, np.float32)
    numbers, absmax = to_int8(deltas)
    back = from_int8(numbers, absmax)
    assert (numbers.dtype, absmax.dtype, back.dtype) == (np.int8, np.float32, np.float32)
    assert len(absmax) == -(-len(values) // 256)
    for start in range(0, len(values), 256):
        block = [Fraction(float(value)) for value in deltas[start : start + 256]]
        largest = max(map(abs, block))
        assert Fraction(float(absmax[start // 256])) == largest
        unit = fp32(largest / 127)
        for i, value in enumerate(block):
            number = round(fp32(fp32(value / largest) * 127))
            assert numbers[start + i] == number
            assert Fraction(float(back[start + i])) == fp32(number * unit)


def test_int8_ties_go_to_even() -> None:
    ties = np.array([0.5, 1.5, 2.5, 3.5, 4.5, -0.5, -2.5, -126.5], np.float32)
    deltas = np.concatenate([[1], ties / np.float32(127)]).astype(np.float32)
    assert (deltas[1:] * np.float32(127) == ties).all()
    assert to_int8(deltas)[0].tolist() == [127, 0, 2, 2, 4, 4, 0, -2, -126]


@pytest.mark.parametrize("count", [1, 255, 256, 257, 1000])
def test_the_error_is_at_most_half_a_level(count: int) -> None:
    deltas = np.random.default_rng(count).normal(size=count).astype(np.float32)
    numbers, absmax = to_int8(deltas)
    level = np.repeat(absmax, 256)[:count] / 127
    assert (np.abs(from_int8(numbers, absmax) - deltas) <= level * 0.50001).all()


def test_an_overflow_on_reading_is_an_infinity() -> None:
    found = from_int8(np.array([127, -127], np.int8), np.array([LARGEST], np.float32))
    assert found.tolist() == [np.inf, -np.inf]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_fault_is_named(value: float) -> None:
    deltas = np.array([1, value, 2, value], np.float32)
    assert first_not_finite(deltas) == 1
    assert first_not_finite(np.array([LARGEST, -LARGEST], np.float32)) == -1
    assert to_bf16(deltas, np.zeros(4, np.uint16)) == 1
    assert to_bf16(np.array([0, LARGEST], np.float32), np.zeros(2, np.uint16)) == 1


def add(merged: NDArray, positions: list[int], deltas: list[float], scale: float) -> list[float]:
    at = np.array(positions, np.uint32)
    add_scaled_entries(at, np.array(deltas, np.float32), np.float32(scale), merged)
    return merged.tolist()


def test_scaled_entries_are_added_where_they_are() -> None:
    merged = np.array([1, 2, 3, 4], np.float32)
    assert add(merged, [1, 3], [0.5, -8], 2) == [1, 3, 3, -12]


def test_product_and_sum_are_not_fused() -> None:
    """(1 + 2⁻¹²)² rounds to 1 + 2⁻¹¹; a fused multiply-add would leave 2⁻²⁴."""
    merged = np.full(1000, -(1 + 2.0**-11), np.float32)
    step = 1 + 2.0**-12
    assert set(add(merged, list(range(1000)), [step] * 1000, step)) == {0.0}
