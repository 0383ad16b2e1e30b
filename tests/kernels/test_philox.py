"""Retention draws: published vectors, golden masks, and no dependence on tiling."""

from __future__ import annotations

import numpy as np
import pytest
import selection_oracle as oracle
from arithmetic_vectors import GOLDEN_MASKS, KNOWN_ANSWERS, NAME
from hypothesis import given
from hypothesis import strategies as st

from patchc.kernels.philox import Retention, cpu, reference, retention_stream, retention_threshold
from patchc.kernels.topk import cpu as topk

STREAM_SE, STREAM_OSM = 0xE2955638DA36995F, 0xB000775EED193FB7
POISON = 0xDEADBEEF


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _kernel_mask(
    retention: Retention, first: int, count: int, tile: int
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """The retention mask as the selection kernel sees it: every retained entry of equal scores."""
    mask = np.ones(count, np.bool_)
    everything = topk.TopThreshold(key=0, ties=count, available_ties=count)
    for start in range(0, count, tile):
        part = mask[start : start + tile]
        bits = np.zeros(part.size, np.uint32)
        topk.mark_top(bits, first + start, retention, everything, count, part)
    return mask


@pytest.mark.parametrize("case", KNOWN_ANSWERS)
def test_the_oracle_gives_the_known_answers(case: str) -> None:
    counter, key, expected = KNOWN_ANSWERS[case]
    assert oracle.philox(counter, key) == expected
    block = np.array([counter[0] | counter[1] << 32], np.uint64)
    many = oracle.philox_blocks(block, counter[2] | counter[3] << 32, key[0] | key[1] << 32)
    assert tuple(many[0].tolist()) == expected


@pytest.mark.parametrize("case", KNOWN_ANSWERS)
def test_the_kernel_gives_the_known_answers(case: str) -> None:
    counter, key, expected = KNOWN_ANSWERS[case]
    draws = np.full(4, POISON, np.uint32)
    cpu.fill_draws(
        np.uint64(key[0] | key[1] << 32),
        np.uint64(counter[2] | counter[3] << 32),
        _signed(counter[0] | counter[1] << 32),
        draws,
    )
    assert tuple(draws.tolist()) == expected


@given(
    seed=st.integers(0, 2**64 - 1),
    stream=st.integers(0, 2**64 - 1),
    block=st.integers(0, 2**60),
    blocks=st.integers(1, 70),
)
def test_draws_equal_oracle(seed: int, stream: int, block: int, blocks: int) -> None:
    draws = np.full(4 * blocks, POISON, np.uint32)
    cpu.fill_draws(np.uint64(seed), np.uint64(stream), block, draws)
    numbers = np.arange(block, block + blocks, dtype=np.uint64)
    expected = oracle.philox_blocks(numbers, stream, seed)
    assert draws.reshape(-1, 4).tolist() == expected.tolist()
    plain = reference.draws(seed, stream, 4 * block + 1, 4 * blocks - 2)
    assert plain.tolist() == expected.ravel()[1:-1].tolist()


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 64, 4099])
@pytest.mark.parametrize("threshold", [0, 1, 2**30, 2**32 - 1, 2**32])
def test_sums_of_retained_entries_equal_the_oracle(count: int, threshold: int) -> None:
    """Any number of entries, from any place."""
    seed, stream, block = 2**63 + 5, 7 << 40, 2**33 - 1
    sums = (np.arange(count) % 5).astype(np.uint8)
    cpu.add_retained(Retention(seed, stream, threshold), 4 * block, np.uint8(3), sums)
    numbers = np.arange(block, block + count // 4 + 1, dtype=np.uint64)
    draws = oracle.philox_blocks(numbers, stream, seed).ravel()[:count].tolist()
    assert sums.tolist() == [i % 5 + 3 * (draw < threshold) for i, draw in enumerate(draws)]


@pytest.mark.parametrize(
    ("retain", "threshold"),
    [
        (0.0, 0),
        (1.0, 2**32),
        (0.5, 2**31),
        (0.3, 1288490189),
        (2**-33, 0),
        (3 * 2**-33, 2),
        (2**-32, 1),
        (1 - 2**-33, 2**32),
    ],
)
def test_threshold_is_an_integer_rounded_to_even(retain: float, threshold: int) -> None:
    assert retention_threshold(retain) == threshold


def test_streams_are_the_golden_ones() -> None:
    assert retention_stream("se", NAME) == oracle.stream_of("se", NAME) == STREAM_SE
    assert retention_stream("osm", NAME) == oracle.stream_of("osm", NAME) == STREAM_OSM
    assert retention_stream("se", "größe") == oracle.stream_of("se", "größe")


@pytest.mark.parametrize("tile", [4, 12, 64, 1000, 4096, 5000])
@pytest.mark.parametrize("case", range(4))
def test_golden_masks_for_any_tile(case: int, tile: int) -> None:
    component, seed, retain, first, golden = GOLDEN_MASKS[case]
    retention = Retention(seed, retention_stream(component, NAME), retention_threshold(retain))
    mask = _kernel_mask(retention, first, 8 * len(bytes.fromhex(golden)), tile)
    assert np.packbits(mask).tobytes().hex() == golden


def test_tiling_does_not_move_draws_across_inner_blocks() -> None:
    retention = Retention(3, retention_stream("se", NAME), 2**31)
    whole = _kernel_mask(retention, 0, 20001, 20004)
    assert np.array_equal(whole, oracle.retained("se", NAME, 3, 0.5, 0, 20001))
    assert np.array_equal(whole, _kernel_mask(retention, 0, 20001, 4))


@pytest.mark.parametrize(("retain", "kept"), [(0.0, 0), (1.0, 999)])
def test_extreme_probabilities_retain_all_or_nothing(retain: float, kept: int) -> None:
    retention = Retention(11, 12, retention_threshold(retain))
    assert int(_kernel_mask(retention, 0, 999, 400).sum()) == kept
