"""Exact top-k among retained entries against a sort, with every kind of tie."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import selection_oracle as oracle
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from patchc.kernels.philox import Retention, retention_threshold
from patchc.kernels.topk import cpu as topk
from patchc.kernels.topk import reference

SEED, STREAM = 77, oracle.stream_of("se", "t")
NAMED = ("se", "t", SEED)


def _retention(retain: float) -> Retention:
    return Retention(SEED, STREAM, retention_threshold(retain))


def _tiles(scores: NDArray[np.float32], tile: int) -> Iterator[tuple[int, NDArray[np.uint32]]]:
    bits = scores.view(np.uint32)
    for first in range(0, bits.size, tile):
        yield first, bits[first : first + tile]


def _top_mask(
    scores: NDArray[np.float32], retain: float, count: int, tile: int
) -> NDArray[np.bool_]:
    """The whole selection from the kernels alone, tile by tile."""
    retention = _retention(retain)
    high_bins = np.zeros(topk.HIGH_BINS, np.int64)
    for first, bits in _tiles(scores, tile):
        assert topk.count_high(bits, first, retention, high_bins) == -1
    count = min(count, int(high_bins.sum()))
    top = topk.NOTHING
    if count:
        high, above = topk.find_bin(high_bins, count)
        low_bins = np.zeros(topk.LOW_BINS, np.int64)
        for first, bits in _tiles(scores, tile):
            topk.count_low(bits, first, retention, high, low_bins)
        low, above_low = topk.find_bin(low_bins, count - above)
        ties = count - above - above_low
        top = topk.TopThreshold(high * topk.LOW_BINS + low, ties, int(low_bins[low]))
    mask = np.ones(scores.size, np.bool_)  # poisoned: the kernel must clear what is not in
    left = top.ties
    for first, bits in _tiles(scores, tile):
        part = mask[first : first + tile]
        topk.mark_top(bits, first, retention, top, max(left, 0), part)
        left -= topk.count_ties(bits, first, retention, top)
    assert top is topk.NOTHING or left == top.ties - top.available_ties
    return mask


def _expected(scores: NDArray[np.float32], retain: float, count: int) -> NDArray[np.bool_]:
    kept = oracle.retained(*NAMED, retain, 0, scores.size)
    return oracle.top_set(scores, kept, count)


def _scores(kind: str, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    if kind == "spread":
        values = rng.exponential(size=count)
    elif kind == "four levels":
        values = rng.integers(0, 4, count) / 3
    elif kind == "all equal":
        values = np.full(count, 0.25)
    elif kind == "all zero":
        values = np.zeros(count)
    elif kind == "signed zeros":
        values = np.where(rng.random(count) < 0.5, -0.0, np.where(rng.random(count) < 0.8, 0.0, 1))
    elif kind == "subnormal":
        values = rng.integers(0, 20, count) * 1.4e-45
    elif kind == "close":
        values = np.float32(1.0) + rng.integers(0, 7, count) * np.float32(2**-23)
    else:
        values = rng.integers(0, 0x7F800000, count, dtype=np.uint32).view(np.float32)
    return values.astype(np.float32)


KINDS = (
    "spread", "four levels", "all equal", "all zero", "signed zeros", "subnormal", "close", "bits",
)  # fmt: skip


@given(
    kind=st.sampled_from(KINDS),
    count=st.integers(0, 300),
    share=st.floats(0, 1),
    retain=st.sampled_from([0.0, 0.1, 0.5, 0.97, 1.0]),
    tile=st.sampled_from([4, 32, 100, 4096]),
    seed=st.integers(0, 2**16),
)
def test_top_sets_equal_a_sort(
    kind: str, count: int, share: float, retain: float, tile: int, seed: int
) -> None:
    scores = _scores(kind, count, np.random.default_rng(seed))
    wanted = int(share * count)
    found = _top_mask(scores, retain, wanted, tile)
    assert np.array_equal(found, _expected(scores, retain, wanted))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tile", [4096, 8192, 20000])
def test_equals_a_sort_across_inner_blocks(kind: str, tile: int) -> None:
    scores = _scores(kind, 9001, np.random.default_rng(1))
    assert np.array_equal(_top_mask(scores, 0.6, 2500, tile), _expected(scores, 0.6, 2500))


def test_package_oracle_equals_the_independent_one() -> None:
    scores = _scores("four levels", 500, np.random.default_rng(2))
    kept = oracle.retained(*NAMED, 0.5, 0, 500)
    expected = oracle.top_set(scores, kept, 120)
    assert np.array_equal(reference.top_mask(scores, kept, 120), expected)


def test_ties_go_to_the_lower_index() -> None:
    scores = np.array([1, 2, 1, 3, 1, 2, 0, 1], np.float32)
    found = _top_mask(scores, 1.0, 5, 4)
    assert np.flatnonzero(found).tolist() == [0, 1, 2, 3, 5]


def test_negative_zero_ties_with_zero() -> None:
    scores = np.array([-0.0, 0.0, -0.0, 0.0], np.float32)
    assert _top_mask(scores, 1.0, 2, 4).tolist() == [True, True, False, False]


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (64, 64)])
def test_nothing_and_everything_can_be_chosen(count: int, expected: int) -> None:
    scores = _scores("spread", 64, np.random.default_rng(3))
    assert int(_top_mask(scores, 1.0, count, 16).sum()) == expected


def test_no_more_than_the_retained() -> None:
    scores = _scores("spread", 64, np.random.default_rng(3))
    found = _top_mask(scores, 0.25, 64, 16)
    assert np.array_equal(found, oracle.retained(*NAMED, 0.25, 0, 64))
    assert not _top_mask(scores, 0.0, 64, 16).any()


@pytest.mark.parametrize("value", [-1.0, -1e-45, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("retain", [0.0, 0.5, 1.0])
def test_bad_scores_are_found_wherever_they_are(value: float, retain: float) -> None:
    scores = np.ones(5000, np.float32)
    scores[4567] = value
    bins = np.zeros(topk.HIGH_BINS, np.int64)
    assert topk.count_high(scores.view(np.uint32), 0, _retention(retain), bins) == 4567


def test_find_bin_counts_from_the_top() -> None:
    bins = np.array([5, 0, 3, 2], np.int64)
    assert [topk.find_bin(bins, k) for k in range(1, 11)] == (
        [(3, 0)] * 2 + [(2, 2)] * 3 + [(0, 5)] * 5
    )


@given(
    low=st.sampled_from([0, 5, 0x3F000000]),
    bits=st.integers(1, 31),
    bins=st.sampled_from([2, 256, 2048]),
    data=st.data(),
)
def test_the_kth_largest_key_and_its_ties(
    low: int, bits: int, bins: int, data: st.DataObject
) -> None:
    span = min(1 << bits, (1 << 31) - low)
    near = st.integers(0, min(3, span - 1)) | st.integers(max(0, span - 3), span - 1)
    drawn = data.draw(st.lists(near | st.integers(0, span - 1), min_size=1, max_size=60))
    keys = np.array([low + one for one in drawn], np.uint32)
    rank = data.draw(st.integers(1, keys.size))
    key, ties, available = topk.kth_largest(keys, low, bits, rank, np.full(bins, 99, np.int64))
    expected = sorted(keys.tolist(), reverse=True)[rank - 1]
    assert key == expected
    assert ties == rank - np.count_nonzero(keys > expected)
    assert available == np.count_nonzero(keys == expected)
