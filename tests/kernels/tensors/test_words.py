"""Philox, rounding and steps in device code, against golden vectors and the CPU's."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import selection_oracle as oracle
import torch
import triton
import triton.language as tl
from arithmetic_vectors import GOLDEN_MASKS, KNOWN_ANSWERS, NAME, ROUNDINGS
from numpy.typing import NDArray

from patchc.dtypes import BY_NAME, MERGEABLE
from patchc.kernels.launch import OPTIONS
from patchc.kernels.philox import retention_threshold
from patchc.kernels.philox.triton import draws, retained
from patchc.kernels.rounding.triton import from_fp32, step_between, to_fp32
from patchc.kernels.ulp_steps.reference import steps_between

POISON = 0x5A5A5A5A


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


NUMPY = {
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}


@triton.jit
def _draw(out, seed: tl.int64, stream: tl.int64, block: tl.int64, QUARTER: tl.constexpr):
    found = draws(seed, stream, block + tl.zeros((1,), tl.int64), QUARTER)
    tl.store(out + tl.arange(0, 4 * QUARTER), found.to(tl.int32, bitcast=True))


@triton.jit
def _retain(
    out, seed: tl.int64, stream: tl.int64, limit: tl.int64, block: tl.int64, N: tl.constexpr
):
    kept = retained(seed, stream, limit, block + tl.zeros((1,), tl.int64), True, N)
    tl.store(out + tl.arange(0, N), kept.to(tl.int32))


@triton.jit
def _round(values, words, fits, count, CODE: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    word, fit = from_fp32(tl.load(values + at, mask=at < count, other=0.0), CODE)
    tl.store(words + at, word, mask=at < count)
    tl.store(fits + at, fit.to(tl.int32), mask=at < count)


@triton.jit
def _widen(words, values, count, CODE: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = to_fp32(tl.load(words + at, mask=at < count, other=0), CODE)
    tl.store(values + at, value, mask=at < count)


@triton.jit
def _step(before, after, steps, count, CODE: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    one = tl.load(before + at, mask=at < count, other=0)
    other = tl.load(after + at, mask=at < count, other=0)
    tl.store(steps + at, step_between(one, other, CODE), mask=at < count)


def _poisoned(count: int, device: str) -> torch.Tensor:
    return torch.full((count,), POISON, dtype=torch.int32, device=device)


@pytest.mark.parametrize("case", KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(case: str, triton_device: str) -> None:
    counter, key, expected = KNOWN_ANSWERS[case]
    low, high = counter[0] | counter[1] << 32, counter[2] | counter[3] << 32
    out = _poisoned(4, triton_device)
    _draw[(1,)](out, _signed(key[0] | key[1] << 32), _signed(high), _signed(low), 1)
    assert tuple(out.cpu().numpy().view(np.uint32).tolist()) == expected


@pytest.mark.parametrize("case", range(len(GOLDEN_MASKS)))
def test_draws_give_the_golden_masks(case: int, triton_device: str) -> None:
    component, seed, retain, first, golden = GOLDEN_MASKS[case]
    count = 8 * len(bytes.fromhex(golden))
    out = _poisoned(count, triton_device)
    stream, limit = oracle.stream_of(component, NAME), retention_threshold(retain)
    _retain[(1,)](out, _signed(seed), _signed(stream), limit, first // 4, count)
    assert np.packbits(out.cpu().numpy().astype(bool)).tobytes().hex() == golden


def _rounded(bits: NDArray[np.uint32], name: str, device: str) -> NDArray[np.int64]:
    """The words, and −1 where they do not fit."""
    count = len(bits)
    values = torch.from_numpy(bits.view(np.float32).copy()).to(device)
    words, fits = _poisoned(count, device), _poisoned(count, device)
    grid = (triton.cdiv(count, 1024),)
    _round[grid](values, words, fits, count, BY_NAME[name].code, 1024, **OPTIONS)
    found = words.cpu().numpy().view(np.uint32).astype(np.int64)
    return np.where(fits.cpu().numpy() == 1, found, -1)


@pytest.mark.parametrize("name", MERGEABLE)
def test_roundings_equal_the_golden_ones(name: str, triton_device: str) -> None:
    cases = [(bits, word) for kind, bits, word in ROUNDINGS if kind == name]
    found = _rounded(np.array([bits for bits, _ in cases], np.uint32), name, triton_device)
    assert found.tolist() == [word for _, word in cases]


@pytest.mark.parametrize("name", NUMPY)
def test_rounding_equals_ml_dtypes(name: str, triton_device: str) -> None:
    rng = np.random.default_rng(3)
    halves = (np.arange(1 << 16, dtype=np.uint32) << 16) | rng.choice(
        np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xF000], np.uint32), 1 << 16
    )
    bits = np.concatenate([halves, rng.integers(0, 2**32, 4001, dtype=np.uint32)])
    values = bits.view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = values.astype(NUMPY[name])
        fits = np.isfinite(values) & np.isfinite(rounded.astype(np.float32))
    words = rounded.view(BY_NAME[name].word).astype(np.int64)
    assert np.array_equal(_rounded(bits, name, triton_device), np.where(fits, words, -1))


@pytest.mark.parametrize("name", NUMPY)
def test_every_word_widens_as_in_ml_dtypes(name: str, triton_device: str) -> None:
    kind = BY_NAME[name]
    words = np.arange(1 << kind.bits, dtype=np.int32)
    values = torch.full((len(words),), -777.25, device=triton_device)
    grid = (triton.cdiv(len(words), 1024),)
    _widen[grid](torch.from_numpy(words).to(triton_device), values, len(words), kind.code, 1024)
    with np.errstate(invalid="ignore"):
        expected = words.astype(kind.word).view(NUMPY[name]).astype(np.float32)
    found = values.cpu().numpy()
    finite = np.isfinite(expected)
    assert np.array_equal(np.isfinite(found), finite)
    assert np.array_equal(found[finite].view(np.uint32), expected[finite].view(np.uint32))
    assert np.array_equal(np.isnan(found), np.isnan(expected))


@pytest.mark.parametrize("name", MERGEABLE)
def test_steps_equal_the_oracle(name: str, triton_device: str) -> None:
    kind = BY_NAME[name]
    rng = np.random.default_rng(5)
    pair = rng.integers(0, 1 << kind.bits, (2, 1500), dtype=np.uint64).astype(kind.word)
    before, after = (
        torch.from_numpy(w.astype(np.uint32).view(np.int32)).to(triton_device) for w in pair
    )
    steps = _poisoned(1500, triton_device)
    _step[(2,)](before, after, steps, 1500, kind.code, 1024)
    assert steps.cpu().tolist() == steps_between(*pair, True).tolist()
