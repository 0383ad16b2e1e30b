"""Words of retained entries, taken and put back, against masks drawn by the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import selection_oracle as oracle
from hypothesis import given
from hypothesis import strategies as st

from patchc.kernels.philox import Retention, retention_stream, retention_threshold
from patchc.kernels.retained_words import count_retained, put_retained, take_retained

SIZES = st.one_of(st.sampled_from([0, 1, 31, 32, 33, 4095, 4096, 4097]), st.integers(0, 9000))


@given(
    size=SIZES,
    first=st.integers(0, 5000).map(lambda value: 4 * value),
    seed=st.integers(0, 2**64 - 1),
    retain=st.sampled_from([0.0, 1e-3, 0.01, 0.3, 0.5, 1.0]),
    kind=st.sampled_from(["u1", "u2", "u4"]),
)
def test_what_is_retained_is_taken_in_order_and_put_back(
    size: int, first: int, seed: int, retain: float, kind: str
) -> None:
    words = np.random.default_rng(size).integers(1, 256, size).astype(kind)
    retention = Retention(seed, retention_stream("se", "w"), retention_threshold(retain))
    mask = oracle.retained("se", "w", seed, retain, first, size)
    taken = np.empty_like(words)
    count = take_retained(words, first, retention, taken)
    assert np.array_equal(taken[:count], words[mask])
    assert count_retained(size, first, retention) == count
    put = np.full_like(words, 9)
    assert put_retained(taken[:count], first, retention, put) == count
    assert np.array_equal(put, np.where(mask, words, 0))


@pytest.mark.parametrize("missing", [1, 40])
def test_missing_words_are_zeros_and_further_ones_are_not_looked_at(missing: int) -> None:
    retention = Retention(3, 5, retention_threshold(0.5))
    whole, put = np.zeros(100, np.uint32), np.zeros(100, np.uint32)
    count = put_retained(np.arange(1, 101, dtype=np.uint32), 0, retention, whole)
    short = np.arange(1, count - missing + 1, dtype=np.uint32)
    assert put_retained(short, 0, retention, put) == count
    assert np.array_equal(put, np.where(whole <= count - missing, whole, 0))
