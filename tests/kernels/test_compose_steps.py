"""Sums of sparse changes against dictionaries of Python integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchc.kernels.ulp_steps.cpu import compose_steps
from patchc.kernels.ulp_steps.reference import wrapped

WIDTHS = [8, 16, 32, 64]


def changes(width: int) -> st.SearchStrategy[dict[int, int]]:
    half = 1 << (width - 1)
    steps = st.sampled_from([1, -1, 2, half - 1, -half, 1 - half]).filter(
        lambda s: -half <= s < half
    )
    return st.dictionaries(st.integers(0, 20), steps, max_size=12)


@pytest.mark.parametrize("width", WIDTHS)
@given(data=st.data())
def test_sums_equal_the_oracle(width: int, data: st.DataObject) -> None:
    sides = [data.draw(changes(width)) for _ in range(2)]
    positions, steps = compose_steps(*map(_arrays, sides), width)
    both = {
        at: sides[0].get(at, 0) + sides[1].get(at, 0) for at in sorted({**sides[0], **sides[1]})
    }
    expected = {at: wrapped(step, width) for at, step in both.items() if wrapped(step, width)}
    assert dict(zip(positions.tolist(), steps.tolist(), strict=True)) == expected
    assert positions.tolist() == list(expected)


def test_sums_equal_values_by_hand() -> None:
    first = {0: 1, 3: 100, 4: 5}
    second = {1: -1, 3: 100, 4: -5, 9: 2}
    positions, steps = compose_steps(_arrays(first), _arrays(second), 8)
    assert positions.tolist() == [0, 1, 3, 9]
    assert steps.tolist() == [1, -1, -56, 2]


def _arrays(found: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    items = sorted(found.items())
    return np.array([at for at, _ in items], np.uint32), np.array([s for _, s in items], np.int64)
