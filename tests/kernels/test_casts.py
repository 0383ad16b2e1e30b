"""Casts between small floats: every word, against the conversions of another library."""

from __future__ import annotations

from itertools import permutations

import ml_dtypes
import numpy as np
import pytest

from patchc.dtypes import BY_NAME, MERGEABLE
from patchc.kernels.rounding.cpu import cast

NUMPY = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}


def _words(name: str) -> np.ndarray:
    kind = BY_NAME[name]
    if kind.bits < 32:
        return np.arange(1 << kind.bits, dtype=np.uint32).astype(kind.word)
    rng = np.random.default_rng(1)
    near = rng.integers(0, 2**32, 50_000, dtype=np.uint64)
    halves = np.arange(1 << 16, dtype=np.uint64) << 16
    return np.concatenate([near, halves, halves | 0x8000, halves | 0x7FFF]).astype(np.uint32)


@pytest.mark.parametrize(("source", "target"), list(permutations(MERGEABLE, 2)))
def test_every_word_is_cast_as_by_ml_dtypes(source: str, target: str) -> None:
    words = _words(source)
    found = np.full(words.shape, 0xA5, BY_NAME[target].word)
    cast(words, BY_NAME[source].code, BY_NAME[target].code, found)
    with np.errstate(invalid="ignore"):
        values = words.view(NUMPY[source]).astype(np.float64)
    largest = float(ml_dtypes.finfo(NUMPY[target]).max)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = values.astype(np.float32).astype(NUMPY[target])
        exact = rounded.astype(np.float64)
    fits = np.isfinite(values) & np.isfinite(exact) & (np.abs(exact) <= largest)
    expected = np.where(fits, rounded.view(BY_NAME[target].word), 0)
    saturated = np.isfinite(values) & ~np.isfinite(exact)
    assert not found[saturated].any()
    assert (found == expected).all()
