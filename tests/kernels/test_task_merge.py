"""The fused merge of task vectors against the kernels that do it entry by entry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_checkpoints import NUMPY

from patchc.dtypes import BY_NAME
from patchc.kernels.bitmask import pack
from patchc.kernels.task_merge import reference as plain
from patchc.kernels.task_merge.cpu import count_signs, magnitudes, merge_task_vectors
from patchc.kernels.tiles import new_tiles

FORMATS = {name: NUMPY[name] for name in ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")}
SIZES = [0, 1, 31, 33, 2047, 2048, 2049, 5000]


@dataclass(frozen=True)
class Vector:
    """One tuned model: its words, their dtype, what is selected of it, and its scale."""

    words: NDArray
    dtype: str
    mask: NDArray[np.bool_]
    scale: np.float32


@dataclass(frozen=True)
class Outcome:
    """What a merge gives; the rest holds where there is no fault."""

    fault: bool
    result: list[int]
    selected: list[int]
    balance: int


def _fused(
    base: NDArray,
    name: str,
    vectors: list[Vector],
    elects: bool,
    majority: int,
    total_scale: np.float32,
) -> Outcome:
    code = BY_NAME[name].code
    rows = np.full((len(vectors), 4 * base.size), 0xA5, np.uint8)
    for row, vector in zip(rows, vectors, strict=True):
        row[: vector.words.nbytes] = vector.words.view(np.uint8)
    codes = np.array([BY_NAME[vector.dtype].code for vector in vectors], np.int64)
    masks = np.stack([pack(vector.mask) for vector in vectors])
    scales = np.array([vector.scale for vector in vectors], np.float32)
    result = np.full(base.size, 0x55, base.dtype)
    selected = np.zeros(len(vectors), np.int64)
    fault = merge_task_vectors(
        base,
        code,
        rows,
        codes,
        masks,
        scales,
        elects,
        majority,
        total_scale,
        result,
        selected,
        new_tiles(),
    )
    balance = count_signs(base, code, rows, codes, masks, scales, new_tiles())
    return Outcome(fault, result.tolist(), selected.tolist(), balance)


def _plain(
    base: NDArray,
    name: str,
    vectors: list[Vector],
    elects: bool,
    majority: int,
    total_scale: np.float32,
) -> Outcome:
    code = BY_NAME[name].code
    total, balanced = np.zeros((2, base.size), np.float32)
    sums, weights = np.zeros((2, 2, base.size), np.float32)
    delta, selected, faults = np.empty(base.size, np.float32), [], []
    for one in vectors:
        faults.append(plain.subtract(base, code, one.words, BY_NAME[one.dtype].code, delta))
        plain.add_scaled(delta, one.mask, one.scale, balanced)
        if elects:
            selected.append(plain.add_votes(delta, one.mask, one.scale, total, sums, weights))
        else:
            selected.append(plain.add_scaled(delta, one.mask, one.scale, total))
    if elects:
        faults.append(plain.average_elected(total, sums, weights, majority))
    result = np.empty_like(base)
    faults.append(plain.add_total(base, code, total, total_scale, result))
    return Outcome(max(faults) >= 0, result.tolist(), selected, plain.count_signs(balanced))


def _check(
    base: NDArray, name: str, vectors: list[Vector], elects: bool, majority: int, total_scale: float
) -> Outcome:
    fused = _fused(base, name, vectors, elects, majority, np.float32(total_scale))
    expected = _plain(base, name, vectors, elects, majority, np.float32(total_scale))
    assert fused.fault == expected.fault
    assert fused.fault or fused == expected
    return expected


def _words(values: NDArray) -> NDArray:
    return values.view(f"u{values.itemsize}")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("elects", [False, True])
def test_the_fused_merge_equals_the_plain_kernels(name: str, size: int, elects: bool) -> None:
    rng = np.random.default_rng(size)
    base = _words(rng.normal(size=size).astype(FORMATS[name]))
    vectors = [
        Vector(
            _words(rng.normal(size=size).astype(FORMATS[dtype])),
            dtype,
            rng.random(size) < 0.6,
            np.float32(scale),
        )
        for dtype, scale in (("F32", 0.7), ("BF16", 1), ("F16", 0.2), (name, 0.4))
    ]
    for models in (1, 2, 4):
        outcome = _check(base, name, vectors[:models], elects, 1, 0.6)
        assert not outcome.fault
    assert size < 2000 or (min(outcome.selected) > 1000 and outcome.result != base.tolist())


@given(
    name=st.sampled_from(["F32", "BF16", "F8_E4M3"]),
    size=st.integers(1, 80),
    levels=st.integers(1, 3),
    scales=st.lists(st.sampled_from([0.0, 1.0, 0.5, 2.0]), min_size=1, max_size=4),
    majority=st.sampled_from([-3, 0, 5]),
    total_scale=st.sampled_from([1.0, -0.5, 0.0, -0.0]),
    elects=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_sums_that_cancel_and_zeros_of_both_signs(
    name: str,
    size: int,
    levels: int,
    scales: list[float],
    majority: int,
    total_scale: float,
    elects: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    whole = rng.integers(-1, 2, size).astype(np.float32) * rng.choice([1, -1], size)
    base = whole.astype(FORMATS[name])
    vectors = []
    for scale in scales:
        moved = (whole + rng.integers(-levels, levels + 1, size)).astype(FORMATS[name])
        moved = np.where(rng.random(size) < 0.3, -moved, moved)
        vectors.append(Vector(_words(moved), name, rng.random(size) < 0.7, np.float32(scale)))
    outcome = _check(_words(base), name, vectors, elects, majority, total_scale)
    assert not outcome.fault
    if not total_scale:
        assert outcome.result == _words(base).tolist()


@given(
    name=st.sampled_from(["F32", "F16", "BF16", "F8_E5M2"]),
    bits=st.lists(
        st.integers(0, 2**32 - 1) | st.sampled_from([0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 1]),
        min_size=1,
        max_size=40,
    ),
    scale=st.sampled_from([0.0, 1.0, 3e38]),
    total_scale=st.sampled_from([0.0, 1.0, -3e38]),
    elects=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_bits_equal_the_plain_kernels(
    name: str, bits: list[int], scale: float, total_scale: float, elects: bool, seed: int
) -> None:
    """Infinities, NaNs, subnormals and overflows, selected or not; sums of them that are not."""
    rng = np.random.default_rng(seed)
    words = np.array(bits, np.uint32)
    base = (words >> (32 - BY_NAME[name].bits)).astype(BY_NAME[name].word)
    vectors = [
        Vector(rng.permutation(words), "F32", rng.random(words.size) < 0.5, np.float32(scale))
        for _ in range(3)
    ]
    _check(base, name, vectors, elects, 1, total_scale)


@pytest.mark.parametrize("place", [0, 31, 2048, 2999])
@pytest.mark.parametrize("bits", [0x7F800000, 0xFF800000, 0x7FC00001, 0xFFFFFFFF])
@pytest.mark.parametrize("elects", [False, True])
def test_what_is_not_finite_is_found_whether_it_is_kept_or_not(
    place: int, bits: int, elects: bool
) -> None:
    base, tuned = np.zeros(3000, np.uint16), np.zeros(3000, np.uint32)
    nothing, everything = np.zeros(3000, np.bool_), np.ones(3000, np.bool_)
    for mask in (nothing, everything):
        sound = [Vector(tuned, "F32", mask, np.float32(1))] * 2
        assert not _check(base, "BF16", sound, elects, 0, 1).fault
        bad = tuned.copy()
        bad[place] = bits
        faulty = [sound[0], Vector(bad, "F32", mask, np.float32(1))]
        assert _check(base, "BF16", faulty, elects, 0, 1).fault


def test_an_infinite_factor_does_no_harm_where_nothing_changed() -> None:
    """As a weight over a tiny density is; 0 · ∞ would be no number."""
    base = _words(np.ones(40, np.float32))
    tuned = base.copy()
    everything = np.ones(40, np.bool_)
    same = [Vector(tuned, "F32", everything, np.float32(np.inf))]
    outcome = _fused(base, "F32", same, False, 0, np.float32(1))
    assert not outcome.fault
    assert outcome.selected == [0]
    assert outcome.result == base.tolist()
    moved = [Vector(_words(np.full(40, 2, np.float32)), "F32", everything, np.float32(np.inf))]
    assert _fused(base, "F32", moved, False, 0, np.float32(1)).fault


def test_product_and_sum_are_not_fused() -> None:
    """One fused multiply-add would keep the product's last bit; two roundings lose it."""
    step = np.float32(1 + 2.0**-12)
    base = np.full(100, -(1 + 2.0**-11), np.float32)
    tuned = np.full(100, -(2.0**-12), np.float32)  # tuned − base = 1 + 2⁻¹²
    vector = Vector(_words(tuned), "F32", np.ones(100, np.bool_), np.float32(1))
    outcome = _fused(_words(base), "F32", [vector], False, 0, step)
    assert not outcome.fault
    assert not any(outcome.result)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("tuned", FORMATS)
@pytest.mark.parametrize("size", SIZES)
def test_magnitudes_are_those_of_the_differences(name: str, tuned: str, size: int) -> None:
    rng = np.random.default_rng(size + 1)
    base = _words(rng.normal(size=size).astype(FORMATS[name]))
    words = _words(rng.normal(size=size).astype(FORMATS[tuned]))
    codes = BY_NAME[name].code, BY_NAME[tuned].code
    found, delta = np.full(size, 0xA5A5A5A5, np.uint32), np.empty(size, np.float32)
    assert not magnitudes(base, codes[0], words, codes[1], found, new_tiles())
    assert plain.subtract(base, codes[0], words, codes[1], delta) < 0
    assert np.array_equal(found, np.abs(delta).view(np.uint32))


@pytest.mark.parametrize("place", [0, 2048, 2999])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_magnitudes_tell_what_is_not_finite(place: int, side: int, value: float) -> None:
    models = np.zeros((2, 3000), np.float32)
    models[side, place] = value
    code = BY_NAME["F32"].code
    words, found = models.view(np.uint32), np.empty(3000, np.uint32)
    assert magnitudes(words[0], code, words[1], code, found, new_tiles())
