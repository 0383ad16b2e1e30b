"""The steps of :mod:`patchc.kernels.ulp_steps`, in plain Python integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import Words
from patchc.sides import Side


def wrapped(value: int, width: int) -> int:
    """``value`` modulo 2^width, as a signed integer."""
    half = 1 << (width - 1)
    return (value + half) % (1 << width) - half


def steps_between(base: Words, tuned: Words, total_order: bool) -> NDArray[np.int64]:
    """The step of every entry: the definition of how values are coded."""
    width = 8 * base.dtype.itemsize
    pairs = zip(base.tolist(), tuned.tolist(), strict=True)
    steps = [_ordered(t, width, total_order) - _ordered(b, width, total_order) for b, t in pairs]
    return np.array([wrapped(step, width) for step in steps], np.int64)


def add_steps(
    words: Words,
    positions: NDArray[np.integer],
    steps: NDArray[np.integer],
    total_order: bool,
    target: Side,
) -> Words:
    """A copy of ``words`` with each step added, or taken back."""
    width = 8 * words.itemsize
    changed = words.copy()
    for position, step in zip(positions.tolist(), steps.tolist(), strict=True):
        order = _ordered(int(words[position]), width, total_order)
        moved = (order - step if target == "base" else order + step) % (1 << width)
        changed[position] = _ordered(moved, width, total_order)
    return changed


def _ordered(word: int, width: int, total_order: bool) -> int:
    top = 1 << (width - 1)
    return word ^ (top - 1) if total_order and word >= top else word
