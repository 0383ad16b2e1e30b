"""Words of retained entries, taken and put back, against masks drawn by the oracle."""

from __future__ import annotations

import numpy as np
import selection_oracle as oracle
from hypothesis import given
from hypothesis import strategies as st

from patchc.kernels.philox import Retention, retention_stream, retention_threshold
from patchc.kernels.retained_words import BLOCK_WORDS, count_retained, put_retained, take_retained

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


@given(
    size=st.one_of(SIZES, st.sampled_from([BLOCK_WORDS, BLOCK_WORDS + 1, 3 * BLOCK_WORDS + 5])),
    block=st.integers(0, 5),
    seed=st.integers(0, 2**64 - 1),
    retain=st.sampled_from([0.0, 1e-3, 0.01, 0.3, 1.0]),
    origin=st.integers(0, 9),
)
def test_words_are_put_to_the_places_of_retained_entries(
    size: int, block: int, seed: int, retain: float, origin: int
) -> None:
    first = block * BLOCK_WORDS
    retention = Retention(seed, retention_stream("se", "w"), retention_threshold(retain))
    mask = oracle.retained("se", "w", seed, retain, first, size)
    words = np.arange(1, mask.sum() + 1, dtype=np.uint32)
    starts = [*range(0, size, BLOCK_WORDS), size]
    before = np.array([origin + mask[:start].sum() for start in starts], np.int64)
    expected = np.zeros(size, np.uint32)
    expected[mask] = words
    put = np.full_like(expected, 9)
    assert put_retained(words, before, first, retention, put)
    assert np.array_equal(put, expected)
    for wrong in range(1, len(starts)):
        changed = before.copy()
        changed[wrong] += 1
        assert not put_retained(words, changed, first, retention, put)


def test_missing_words_are_not_looked_for() -> None:
    """The numbers are true, and fewer words are there than they say."""
    retention, put = Retention(3, 5, retention_threshold(0.5)), np.ones(100, np.uint32)
    count = int(count_retained(100, 0, retention))
    words = np.full(count, 7, np.uint32)
    assert put_retained(words[:-5], np.array([0, count]), 0, retention, put)
    assert (put == 7).sum() == count - 5
