"""Steps between words: a hand-written table, order, and exact return for every width."""

from __future__ import annotations

import numpy as np
import pytest
import selection_oracle as oracle
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from patchc.kernels.ulp_steps.cpu import add_steps, changed_steps
from patchc.kernels.ulp_steps.reference import steps_between

WORDS = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
UNTOUCHED_POSITION = 0xFFFFFFFF
UNTOUCHED_STEP = -(2**62)

# width, float, word before, word after, step
TABLE = [
    (16, True, 0x0000, 0x0001, 1),  # +0 → smallest subnormal
    (16, True, 0x8000, 0x0000, 1),  # −0 → +0
    (16, True, 0x0000, 0x8000, -1),  # +0 → −0
    (16, True, 0x8001, 0x0001, 3),  # smallest negative → smallest positive
    (16, True, 0x3F80, 0x3F81, 1),  # bf16 1 → the next above
    (16, True, 0xBF80, 0xBF81, -1),  # bf16 −1 → the next below
    (16, True, 0xBF80, 0x3F80, 2 * 0x3F80 + 1),  # bf16 −1 → 1
    (16, True, 0x7F80, 0x7FC1, 0x41),  # bf16 ∞ → a NaN with a payload
    (16, True, 0xFFC1, 0xFF80, 0x41),  # a negative NaN → −∞
    (16, True, 0xFFFF, 0x7FFF, -1),  # the extremes of the order wrap around
    (16, True, 0x7FFF, 0xFFFF, 1),
    (8, True, 0x80, 0x00, 1),
    (8, True, 0x7E, 0xFE, 3),  # E4M3 448 → −448: 253 steps down, 3 up modulo 256
    (32, True, 0x80000000, 0x00000000, 1),
    (32, True, 0x3F800000, 0x3F7FFFFF, -1),
    (64, True, 0x8000000000000000, 0, 1),
    (64, True, 0xBFF0000000000000, 0x3FF0000000000000, 2 * 0x3FF0000000000000 + 1),
    (64, True, 0xFFF0000000000000, 0x7FF0000000000000, 2 * 0x7FF0000000000000 + 1 - 2**64),
    (8, False, 0x00, 0xFF, -1),  # integers wrap: 0 → 255
    (8, False, 0xFF, 0x00, 1),
    (8, False, 0x00, 0x80, -128),
    (8, False, 0x80, 0x00, -128),
    (8, False, 0x01, 0x80, 127),
    (16, False, 0x8000, 0x7FFF, -1),
    (32, False, 0, 0x80000000, -(2**31)),
    (64, False, 0, 2**63, -(2**63)),
    (64, False, 2**63, 2**63 - 1, -1),
    (64, False, 2**64 - 1, 0, 1),
]


def _changes(
    before: NDArray, after: NDArray, is_float: bool
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The kernel's positions and steps; entries past the count must stay as they were."""
    positions = np.full(before.size + 1, UNTOUCHED_POSITION, np.uint32)
    steps = np.full(before.size + 1, UNTOUCHED_STEP, np.int64)
    count = changed_steps(before, after, is_float, positions, steps)
    assert (positions[count:] == UNTOUCHED_POSITION).all()
    assert (steps[count:] == UNTOUCHED_STEP).all()
    return positions[:count], steps[:count]


def _random_pair(width: int, seed: int, count: int = 500) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    before, after = (
        rng.integers(0, 2**width, count, dtype=np.uint64, endpoint=False).astype(WORDS[width])
        if width < 64
        else np.frombuffer(rng.bytes(8 * count), np.uint64)
        for _ in range(2)
    )
    return before, np.where(rng.random(count) < 0.3, before, after)


@pytest.mark.parametrize(("width", "is_float", "before", "after", "step"), TABLE)
def test_steps_equal_a_hand_written_table(
    width: int, is_float: bool, before: int, after: int, step: int
) -> None:
    one, other = np.array([before], WORDS[width]), np.array([after], WORDS[width])
    positions, steps = _changes(one, other, is_float)
    assert (positions.tolist(), steps.tolist()) == ([0], [step])
    assert steps_between(one, other, is_float).tolist() == [step]
    assert oracle.steps(one, other, is_float) == {0: step}
    add_steps(one, positions, steps, is_float, False)
    assert one[0] == after
    add_steps(one, positions, steps, is_float, True)
    assert one[0] == before


@pytest.mark.parametrize("width", WORDS)
@pytest.mark.parametrize("is_float", [True, False])
def test_random_words_equal_both_oracles(width: int, is_float: bool) -> None:
    before, after = _random_pair(width, seed=width)
    positions, steps = _changes(before, after, is_float)
    found = dict(zip(positions.tolist(), steps.tolist(), strict=True))
    assert found == oracle.steps(before, after, is_float)
    assert steps.tolist() == steps_between(before, after, is_float)[positions].tolist()
    assert len(positions) == np.count_nonzero(before != after)


@given(
    width=st.sampled_from(list(WORDS)),
    is_float=st.booleans(),
    seed=st.integers(0, 2**32),
    count=st.integers(0, 60),
)
def test_apply_then_revert_restores_every_bit(
    width: int, is_float: bool, seed: int, count: int
) -> None:
    before, after = _random_pair(width, seed, count)
    positions, steps = _changes(before, after, is_float)
    words = before.copy()
    add_steps(words, positions, steps, is_float, False)
    assert np.array_equal(words, after)
    add_steps(words, positions, steps, is_float, True)
    assert np.array_equal(words, before)


def test_neighbouring_floats_are_one_step_apart() -> None:
    words = np.arange(2**16, dtype=np.uint32).astype(np.uint16)
    values = words.view(np.float16)
    finite = values[(np.abs(values) < np.finfo(np.float16).max) & (values != 0)]
    above = np.nextafter(finite, np.float16(np.inf))
    _, steps = _changes(finite.view(np.uint16), above.view(np.uint16), True)
    # The smallest negative number steps to −0, which is where nextafter leads too.
    assert (steps == 1).all()
    assert len(steps) == finite.size


def test_equal_words_are_no_change_even_where_they_are_nan() -> None:
    words = np.array([0x7FC1, 0xFFFF, 0x8000, 0], np.uint16)
    positions, steps = _changes(words, words.copy(), True)
    assert positions.size == steps.size == 0
