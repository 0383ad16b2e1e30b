"""The fused merge against the kernels that do it entry by entry."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_checkpoints import NUMPY

from patchc.dtypes import BY_NAME
from patchc.kernels.bitmask import pack
from patchc.kernels.rounding.cpu import load_fp32, round_masked
from patchc.kernels.safepatching_merge.cpu import merge_components
from patchc.kernels.safepatching_merge.reference import add_scaled_delta
from patchc.kernels.tiles import convert, new_tiles

FORMATS = {name: NUMPY[name] for name in ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")}

Part = tuple[NDArray, str, NDArray[np.bool_], np.float32]
"""Tuned words, their dtype, where they are selected, their factor."""


def _words(values: NDArray) -> NDArray:
    return values.view(f"u{values.itemsize}")


def _fused(base: NDArray, name: str, parts: list[Part]) -> tuple[bool, NDArray]:
    result = np.full(base.size, 0x55, base.dtype)
    rows = np.full((len(parts), 4 * base.size), 0xA5, np.uint8)
    for row, (words, *_) in zip(rows, parts, strict=True):
        row[: words.nbytes] = words.view(np.uint8)
    codes = np.array([BY_NAME[dtype].code for _, dtype, *_ in parts], np.int64)
    masks = np.stack([pack(mask) for _, _, mask, _ in parts])
    scales = np.array([scale for *_, scale in parts], np.float32)
    code = BY_NAME[name].code
    fault = merge_components(base, code, rows, codes, masks, scales, result, new_tiles())
    return fault, result


def _plain(base: NDArray, name: str, parts: list[Part]) -> tuple[bool, NDArray]:
    code = BY_NAME[name].code
    either = reduce(np.logical_or, (mask for _, _, mask, _ in parts))
    merged, result = np.zeros(base.size, np.float32), np.empty_like(base)
    load_fp32(base, code, either, merged)
    faults = [
        add_scaled_delta(base, code, tuned, BY_NAME[dtype].code, mask, scale, merged)
        for tuned, dtype, mask, scale in parts
    ]
    faults.append(round_masked(base, code, either, merged, result))
    return max(faults) >= 0, result


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [0, 1, 31, 33, 2047, 2048, 2049, 5000])
@pytest.mark.parametrize("tuned", [["F32"], ["F32", "F32"], ["BF16", "F8_E4M3"], ["F16"] * 3])
def test_the_fused_merge_equals_the_plain_kernels(name: str, size: int, tuned: list[str]) -> None:
    rng = np.random.default_rng(size)
    base = _words(rng.normal(size=size).astype(np.float32).astype(FORMATS[name]))
    chosen: list[Part] = [
        (
            _words(rng.normal(size=size).astype(np.float32).astype(FORMATS[dtype])),
            dtype,
            rng.random(size) < 0.3,
            np.float32(1.7 + i),
        )
        for i, dtype in enumerate(tuned)
    ]
    fault, result = _fused(base, name, chosen)
    assert not fault
    assert np.array_equal(result, _plain(base, name, chosen)[1])


@given(
    name=st.sampled_from(["F32", "F16", "BF16"]),
    bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40),
    scale=st.sampled_from([0.0, -0.0, 1.0, -3.5, 3e38]),
    seed=st.integers(0, 1000),
)
def test_any_bits_equal_the_plain_kernels(
    name: str, bits: list[int], scale: float, seed: int
) -> None:
    """Infinities, NaNs, subnormals, both zeros; unselected ones do no harm."""
    rng = np.random.default_rng(seed)
    words = np.array(bits, np.uint32)
    base = (words >> (32 - 8 * BY_NAME[name].word.itemsize)).astype(BY_NAME[name].word)
    parts: list[Part] = [
        (rng.permutation(words), "F32", rng.random(words.size) < 0.5, np.float32(scale))
        for _ in range(2)
    ]
    fault, result = _fused(base, name, parts)
    wrong, expected = _plain(base, name, parts)
    assert fault == wrong
    assert fault or np.array_equal(result, expected)


@pytest.mark.parametrize("place", [0, 31, 2048, 2999])
@pytest.mark.parametrize("bits", [0x7F7F8000, 0x7F800000, 0xFF800000, 0x7FC00001, 0xFFFFFFFF])
def test_what_does_not_fit_is_found_where_it_is_selected(place: int, bits: int) -> None:
    base, tuned = np.zeros(3000, np.uint16), np.zeros(3000, np.uint32)
    tuned[place] = bits
    mask = np.ones(3000, np.bool_)
    assert _fused(base, "BF16", [(tuned, "F32", mask, np.float32(1))])[0]
    mask[place] = False
    assert not _fused(base, "BF16", [(tuned, "F32", mask, np.float32(1))])[0]


def test_product_and_sum_are_not_fused() -> None:
    """One fused multiply-add would keep the product's last bit; two roundings lose it."""
    step = np.float32(1 + 2.0**-12)
    base = np.full(100, -(1 + 2.0**-11), np.float32)
    tuned = np.full(100, -(2.0**-12), np.float32)  # tuned − base = 1 + 2⁻¹²
    part = (_words(tuned), "F32", np.ones(100, np.bool_), step)
    fault, result = _fused(_words(base), "F32", [part])
    assert not fault
    assert not result.any()


@pytest.mark.parametrize("name", ["F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_conversion_is_exact(name: str) -> None:
    words = np.arange(1 << BY_NAME[name].bits, dtype=np.uint32).astype(BY_NAME[name].word)
    found = np.empty(words.size, np.float32)
    convert(words, BY_NAME[name].code, found)
    expected = words.view(FORMATS[name]).astype(np.float32)
    finite = np.isfinite(expected)
    assert np.array_equal(found.view(np.uint32)[finite], expected.view(np.uint32)[finite])
    assert np.array_equal(np.isfinite(found), finite)
