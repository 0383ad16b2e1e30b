"""Normal draws: the loop equals its reference, and both the formula with NumPy's own functions."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import selection_oracle as oracle
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from patchc.kernels.normals import cpu, reference

Numbers = NDArray[np.float64]
SEEDS = st.integers(0, 2**64 - 1)
GOLDEN = [
    "-0x1.27e237b3f61d6p+0",
    "-0x1.12ffac821ea2fp+0",
    "-0x1.79014f4915917p+0",
    "0x1.a2c440ffad2f7p+0",
    "-0x1.afee416507f2fp-2",
    "0x1.195da6b7865ccp+0",
]


def formula(draws: NDArray[np.uint64]) -> Numbers:
    """Box and Muller's method on pairs of 32-bit draws, with NumPy's logarithm, cosine and sine."""
    v = (draws.astype(np.float64) + 0.5) / 2.0**32
    radius, angle = np.sqrt(-2 * np.log(v[0::2])), 2 * np.pi * v[1::2]
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1).ravel()


def drawn(seed: int, stream: int, first: int, count: int) -> NDArray[np.uint64]:
    blocks = np.arange(first // 4, (first + count + 3) // 4 + 1, dtype=np.uint64)
    skip = first % 4
    return oracle.philox_blocks(blocks, stream, seed).ravel()[skip : skip + count]


def added(
    seed: int, stream: int, first: int, tile: int, values: Numbers, scale: float = 1.0
) -> Numbers:
    scratch = np.full(tile, np.nan)
    found = values.copy()
    numbers = np.uint64(seed), np.uint64(stream)
    cpu.add_normals(*numbers, first, scale, np.empty(tile, np.uint32), scratch, found)
    return found


@given(
    seed=SEEDS,
    stream=SEEDS,
    block=st.integers(0, 2**40),
    count=st.integers(1, 200),
    tile=st.integers(1, 24),
    scale=st.floats(-1e3, 1e3),
)
@example(seed=0, stream=0, block=0, count=1, tile=1, scale=-0.5)
@example(seed=2**64 - 1, stream=2**64 - 1, block=2**40, count=199, tile=24, scale=1.0)
def test_the_loop_equals_the_reference_bit_for_bit(
    seed: int, stream: int, block: int, count: int, tile: int, scale: float
) -> None:
    before = np.linspace(-2, 3, count)
    expected = before + scale * reference.normals(seed, stream, 4 * block, count)
    found = added(seed, stream, 4 * block, 4 * tile, before, scale)
    assert found.tobytes() == expected.tobytes()


@given(seed=SEEDS, stream=SEEDS, first=st.integers(0, 2**42), count=st.integers(1, 400))
def test_the_reference_follows_the_formula(seed: int, stream: int, first: int, count: int) -> None:
    whole = drawn(seed, stream, first // 4 * 4, count + 4)
    expected = formula(whole[: (count + first % 4 + 1) // 2 * 2])[first % 4 :][:count]
    found = reference.normals(seed, stream, first, count)
    assert found.shape == (count,)
    # The formula's own angle is rounded near 2π, and a radius of 6 makes 3e-15 of that.
    assert np.abs(found - expected).max() <= 7e-15


def test_draws_at_the_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest and largest draws, powers of two, and angles on both sides of each eighth."""
    near = {0, 2**32 - 1, *(2**power for power in range(32)), *(part << 29 for part in range(8))}
    edges = sorted({(one + step) % 2**32 for one in near for step in (-1, 0, 1)})
    pairs = [(a, b) for i, a in enumerate(edges) for b in edges[i % 10 :: 10]]
    draws = np.array(pairs[: len(pairs) // 2 * 2], np.uint32).ravel()
    monkeypatch.setattr(reference, "draws", lambda *_: draws)
    found = reference.normals(0, 0, 0, draws.size)
    assert 6.7 < np.abs(found).max() < 6.8
    for (a, b), pair in zip(pairs, found.reshape(-1, 2).tolist(), strict=False):
        v, turns = (mpmath.mpf(2 * draw + 1) / 2**33 for draw in (a, b))
        radius, angle = mpmath.sqrt(-2 * mpmath.log(v)), 2 * mpmath.pi * turns
        true = radius * mpmath.cos(angle), radius * mpmath.sin(angle)
        assert max(abs(one - other) for one, other in zip(pair, true, strict=True)) <= 4e-15


def test_golden_numbers() -> None:
    """As they were on the first machine; every other one must have the same."""
    found = added(20261129, 0xE2955638DA36995F, 4 * (2**33 - 1), 4, np.zeros(6))
    assert [value.hex() for value in found.tolist()] == GOLDEN


def test_they_are_normal_and_independent() -> None:
    count = 1 << 18
    one, other = (added(seed, 7, 0, 4096, np.zeros(count)) for seed in (1, 2))
    for numbers in (one, other):
        assert abs(numbers.mean()) < 5 / np.sqrt(count)
        assert abs((numbers**2).mean() - 1) < 5 * np.sqrt(2 / count)
        assert abs((numbers**3).mean()) < 5 * np.sqrt(15 / count)
        assert abs((numbers**4).mean() - 3) < 5 * np.sqrt(96 / count)
        for lag in (1, 2, 3, 4):
            assert abs(np.mean(numbers[lag:] * numbers[:-lag])) < 5 / np.sqrt(count)
            squares = numbers**2 - 1
            assert abs(np.mean(squares[lag:] * squares[:-lag])) < 10 / np.sqrt(count)
    assert abs(np.mean(one * other)) < 5 / np.sqrt(count)
    assert abs(np.mean(np.abs(one) > 1.959963984540054) - 0.05) < 5 * np.sqrt(0.0475 / count)


@given(values=st.lists(st.floats(-1e100, 1e100), max_size=50))
def test_a_sum_of_squares_is_summed_in_order(values: list[float]) -> None:
    total = 0.0
    for value in values:
        total += value * value
    assert cpu.sum_of_squares(np.array(values, np.float64)) == total
