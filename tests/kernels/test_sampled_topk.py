"""One pass with a bracket: what is marked, listed and counted, against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import selection_oracle as oracle
from hypothesis import given
from hypothesis import strategies as st

from patchc.kernels import bitmask
from patchc.kernels.philox import Retention, retention_threshold
from patchc.kernels.topk.sampled import (
    Bracket,
    cut_chunk,
    find_bracket,
    join,
    keep_retained,
    mark_listed,
    mark_retained,
    sample_keys,
)

SEED, STREAM = 77, oracle.stream_of("se", "t")
ALL = 1 << 31
POISON = 0xA5A5A5A5


def _retention(retain: float) -> Retention:
    return Retention(SEED, STREAM, retention_threshold(retain))


def _kept(retain: float, first: int, count: int) -> np.ndarray:
    return oracle.retained("se", "t", SEED, retain, first, count)


@given(
    size=st.integers(0, 200) | st.sampled_from([4095, 4096, 4097, 9001]),
    first=st.sampled_from([0, 4, 4096, 2**34]),
    retain=st.sampled_from([0.0, 0.3, 1 - 2**-32, 1.0]),
    cuts=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    seed=st.integers(0, 100),
)
def test_the_pass_equals_numpy(
    size: int, first: int, retain: float, cuts: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 10, size, dtype=np.uint32)
    signs = np.where((keys == 0) & (rng.random(size) < 0.5), 0x80000000, 0).astype(np.uint32)
    lower, upper = sorted(cuts)
    found = np.full(bitmask.words_for(size), POISON, np.uint32)
    outcome = cut_chunk(
        keys | signs, first, _retention(retain), Bracket(lower, upper), size + 1, found
    )
    kept = _kept(retain, first, size)
    assert not outcome.fault
    assert outcome.ranked == kept.sum()
    assert outcome.above == bitmask.count(found) == (kept & (keys >= upper)).sum()
    assert np.array_equal(bitmask.unpack(found, size), kept & (keys >= upper))
    assert outcome.positions is not None
    inside = np.flatnonzero(kept & (keys >= lower) & (keys < upper))
    assert np.array_equal(outcome.positions, inside)
    assert np.array_equal(outcome.keys, keys[inside])


def test_more_than_there_is_room_for() -> None:
    bits = np.ones(100, np.uint32)
    assert cut_chunk(bits, 0, _retention(1), Bracket(), 99, None).keys is None
    assert cut_chunk(bits, 0, _retention(1), Bracket(), 100, None).keys is not None
    assert (
        cut_chunk(np.ones(10_000, np.uint32), 0, _retention(1), Bracket(), 4100, None).keys is None
    )


@pytest.mark.parametrize("value", [-1.0, -1e-45, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("retain", [0.0, 1.0])
@pytest.mark.parametrize("place", [0, 4567, 4999])
def test_bad_scores_are_found_wherever_they_are(value: float, retain: float, place: int) -> None:
    scores = np.ones(5000, np.float32)
    assert not cut_chunk(scores.view(np.uint32), 0, _retention(retain), Bracket(), 5000, None).fault
    scores[place] = value
    assert cut_chunk(scores.view(np.uint32), 0, _retention(retain), Bracket(), 5000, None).fault


@pytest.mark.parametrize("retain", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("length", [1, 30, 128])
def test_sampled_keys_are_the_retained_ones(retain: float, length: int) -> None:
    firsts = np.array([0, 128, 4096, 2**33])
    runs = np.arange(4 * length, dtype=np.uint32).reshape(4, length) | np.uint32(0x80000000)
    keys, counts = sample_keys(runs, firsts, _retention(retain))
    kept = np.stack([_kept(retain, first, length) for first in firsts.tolist()])
    assert np.array_equal(counts, kept.sum(axis=1))
    assert np.array_equal(keys, np.arange(4 * length).reshape(4, length)[kept])


def test_a_bracket_holds_the_rank_of_the_whole() -> None:
    rng = np.random.default_rng(5)
    whole = rng.integers(0, 1 << 30, 1 << 20, dtype=np.uint32)
    ordered = np.sort(whole)[::-1]
    runs = whole.reshape(-1, 128)[::64]
    counts = np.full(len(runs), 128)
    for rank in (1, 1000, 300_000, 1_000_000, 1 << 20):
        bracket = find_bracket(runs.ravel(), counts, rank * runs.size / whole.size)
        assert bracket.lower <= ordered[rank - 1] < bracket.upper
        inside = (whole >= bracket.lower) & (whole < bracket.upper)
        assert np.count_nonzero(inside) < 0.05 * whole.size


@given(keys=st.lists(st.integers(0, 5) | st.just(0x7F7FFFFF), max_size=40), rank=st.floats(-1, 50))
def test_a_bracket_is_never_empty(keys: list[int], rank: float) -> None:
    counts = np.array([len(keys) // 2, len(keys) - len(keys) // 2])
    bracket = find_bracket(np.array(keys, np.uint32), counts, rank)
    assert 0 <= bracket.lower < bracket.upper <= ALL


@pytest.mark.parametrize("retain", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", [1, 33, 4096, 5001])
def test_only_the_retained_stay(retain: float, size: int) -> None:
    mask = np.random.default_rng(size).random(size) < 0.5
    found = bitmask.pack(mask)
    keep_retained(found, size, 8, _retention(retain))
    assert np.array_equal(bitmask.unpack(found, size), mask & _kept(retain, 8, size))
    assert bitmask.count(found) == (mask & _kept(retain, 8, size)).sum()


@pytest.mark.parametrize("retain", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", [1, 32, 33, 4096, 5001])
def test_the_retained_are_marked(retain: float, size: int) -> None:
    found = np.full(bitmask.words_for(size), POISON, np.uint32)
    mark_retained(found, size, 8, _retention(retain))
    assert np.array_equal(bitmask.unpack(found, size), _kept(retain, 8, size))
    assert bitmask.count(found) == _kept(retain, 8, size).sum()


@pytest.mark.parametrize("cuts", [(0, 64), (0, 32, 4096, 8000), (0, 4128)])
def test_pieces_make_up_the_whole(cuts: tuple[int, ...]) -> None:
    keys = np.random.default_rng(3).integers(0, 10, 9001, dtype=np.uint32)
    bracket, retention = Bracket(3, 7), _retention(0.6)
    ends, parts = (*cuts[1:], keys.size), []
    found, expected = np.full((2, bitmask.words_for(keys.size)), POISON, np.uint32)
    for start, end in zip(cuts, ends, strict=True):
        own = bitmask.run_of(found, start, end - start)
        parts.append(
            (start, cut_chunk(keys[start:end], 8 + start, retention, bracket, keys.size, own))
        )
    whole = cut_chunk(keys, 8, retention, bracket, keys.size, expected)
    joined = join(parts)
    assert (joined.fault, joined.ranked, joined.above) == (False, whole.ranked, whole.above)
    assert np.array_equal(joined.positions, whole.positions)
    assert np.array_equal(joined.keys, whole.keys)
    assert np.array_equal(found, expected)


def test_a_piece_without_room_leaves_the_whole_out() -> None:
    keys = np.ones(200, np.uint32)
    parts = [
        (start, cut_chunk(keys[:100], start, _retention(1), Bracket(), room, None))
        for start, room in ((0, 100), (100, 99))
    ]
    joined = join(parts)
    assert joined.keys is None
    assert joined.positions is None
    assert joined.ranked == 200


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 1000])
def test_marks_are_one_bit_an_entry(size: int) -> None:
    mask = np.random.default_rng(size).random(size) < 0.4
    found = bitmask.pack(mask)
    assert found.size == bitmask.words_for(size) == (size + 31) // 32
    whole = sum(int(word) << (32 * i) for i, word in enumerate(found.tolist()))
    assert whole == sum(1 << i for i in np.flatnonzero(mask).tolist())


@given(
    keys=st.lists(st.integers(0, 4), max_size=100),
    cut=st.integers(0, 5),
    ties=st.integers(0, 30),
    seed=st.integers(0, 100),
)
def test_listed_entries_are_marked_beside_those_that_are(
    keys: list[int], cut: int, ties: int, seed: int
) -> None:
    size = 3 * len(keys) + 5
    rng = np.random.default_rng(seed)
    places = np.sort(rng.permutation(size)[: len(keys)])
    mask = rng.random(size) < 0.3
    mask[places] = False
    found = bitmask.pack(mask)
    mark_listed(found, places.astype(np.uint32), np.array(keys, np.uint32), np.uint32(cut), ties)
    for place, key in zip(places.tolist(), keys, strict=True):
        mask[place] = key > cut or (key == cut and ties > 0)
        ties -= key == cut
    assert np.array_equal(bitmask.unpack(found, size), mask)
