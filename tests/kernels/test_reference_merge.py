"""The merge in fp32, product and sum rounded one after the other, against NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_checkpoints import NUMPY

from patchc.dtypes import BY_NAME
from patchc.kernels.rounding.cpu import load_fp32, round_masked
from patchc.kernels.safepatching_merge import cpu, reference

FORMATS = {name: NUMPY[name] for name in ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")}
WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}
F32 = BY_NAME["F32"].code
POISON = np.float32(-777.25)

Add = Callable[..., int]


@pytest.fixture(params=[reference, cpu], ids=["reference", "cpu"])
def add_scaled_delta(request: pytest.FixtureRequest) -> Add:
    """The addition by NumPy, and by the compiled loop."""
    function: Add = request.param.add_scaled_delta
    return function


def _words(values: NDArray) -> NDArray:
    return values.view(WORDS[values.dtype.itemsize])


def _values(name: str, count: int, rng: np.random.Generator) -> NDArray:
    return rng.normal(size=count).astype(np.float32).astype(FORMATS[name])


@pytest.mark.parametrize("base_name", FORMATS)
@pytest.mark.parametrize("tuned_name", FORMATS)
def test_the_merge_equals_numpy(add_scaled_delta: Add, base_name: str, tuned_name: str) -> None:
    rng = np.random.default_rng(len(base_name + tuned_name))
    base, tuned = _values(base_name, 4001, rng), _values(tuned_name, 4001, rng)
    mask = rng.random(4001) < 0.4
    merged = np.full(4001, POISON)
    load_fp32(_words(base), BY_NAME[base_name].code, mask, merged)
    assert np.array_equal(merged, np.where(mask, base.astype(np.float32), POISON))
    codes = BY_NAME[base_name].code, BY_NAME[tuned_name].code
    scale = np.float32(1.7)
    fault = add_scaled_delta(_words(base), codes[0], _words(tuned), codes[1], mask, scale, merged)
    assert fault == -1
    delta = tuned.astype(np.float32) - base.astype(np.float32)
    expected = np.where(mask, base.astype(np.float32) + scale * delta, POISON)
    assert np.array_equal(merged, expected)
    result = np.full(4001, 0x77, _words(base).dtype)
    assert round_masked(_words(base), codes[0], mask, merged, result) == -1
    rounded = np.where(mask, _words(expected.astype(base.dtype)), _words(base))
    assert np.array_equal(result, rounded)


def test_product_and_sum_are_not_fused(add_scaled_delta: Add) -> None:
    """One fused multiply-add would keep the product's last bit; two roundings lose it."""
    step = np.float32(1 + 2.0**-12)
    base = np.full(1000, -(1 + 2.0**-11), np.float32)
    tuned = np.full(1000, -(2.0**-12), np.float32)  # tuned − base = 1 + 2⁻¹²
    merged = base.copy()
    mask = np.ones(1000, np.bool_)
    assert add_scaled_delta(_words(base), F32, _words(tuned), F32, mask, step, merged) == -1
    fused = float(step) * (float(tuned[0]) - float(base[0])) + float(base[0])
    assert fused == 2.0**-24
    assert (merged == 0).all()


def test_difference_is_rounded_before_it_is_scaled(add_scaled_delta: Add) -> None:
    """tuned − base is −1 − 2⁻²⁵, which rounds to −1; scaled unrounded, −½ would remain."""
    base, tuned = np.array([1], np.float32), np.array([-(2.0**-25)], np.float32)
    merged = np.array([2.0**24], np.float32)
    mask = np.ones(1, np.bool_)
    scale = np.float32(2.0**24)
    assert add_scaled_delta(_words(base), F32, _words(tuned), F32, mask, scale, merged) == -1
    assert merged[0] == 0


def test_zero_delta_turns_negative_zero_positive(add_scaled_delta: Add) -> None:
    """IEEE addition: −0 + 0 = +0. The sum is taken even where nothing is added."""
    base = np.array([-0.0], np.float32)
    merged = base.copy()
    mask = np.ones(1, np.bool_)
    add_scaled_delta(_words(base), F32, _words(base), F32, mask, np.float32(1), merged)
    assert merged.view(np.uint32)[0] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["base", "tuned"])
def test_not_finite_is_found_inside_the_mask_only(
    add_scaled_delta: Add, value: float, which: str
) -> None:
    arrays = {"base": np.ones(9, np.float16), "tuned": np.ones(9, np.float16)}
    arrays[which][[3, 6]] = value
    code = BY_NAME["F16"].code
    words = _words(arrays["base"]), code, _words(arrays["tuned"]), code
    for at, expected in (([0, 5], -1), ([2, 6], 6), ([3, 6], 3)):
        mask = np.zeros(9, np.bool_)
        mask[at] = True
        merged = np.zeros(9, np.float32)
        assert add_scaled_delta(*words, mask, np.float32(0), merged) == expected


def test_overflow_of_the_base_dtype_is_found_inside_the_mask_only() -> None:
    base = np.zeros(4, np.uint16)
    merged = np.array([1, 65520, 65519, np.nan], np.float32)
    code = BY_NAME["F16"].code
    result = np.full(4, 0x5A5A, np.uint16)
    mask = np.array([True, False, True, False])
    assert round_masked(base, code, mask, merged, result) == -1
    assert result.tolist() == [0x3C00, 0, 0x7BFF, 0]
    assert round_masked(base, code, np.array([True, True, True, False]), merged, result) == 1
