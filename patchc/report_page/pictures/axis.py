"""Axes: from values to places in a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_STEPS = (1, 2, 2.5, 5, 10)
_HALVES = (2.5, 1.0)
"""The one step that would mark halves between whole numbers, such as steps of training."""
_PARTS = 4
_SAME = 1e-6
"""Values are one value when they differ by less than this part of the largest."""

_SMALLEST = 1e-290
"""A span below it is none: its steps might be 0."""


@dataclass(frozen=True)
class Axis:
    """A range of values and where it lies.

    Attributes:
        low, high: the values at the ends; ``low`` is below ``high``.
        start, end: where they are.
        ticks: values to mark, round and rising.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Return the place of a value; that of the nearer end for one beyond it."""
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        return self.start + share * (self.end - self.start)


def axis_for(values: Sequence[float], start: float, end: float, *, round_ends: bool = True) -> Axis:
    """Make an axis that has room for all values.

    Args:
        values: finite ones; without any, the axis goes from 0 to 1.
        start, end: its place.
        round_ends: whether it ends at ticks.
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    largest = max(abs(low), abs(high))
    if high - low <= max(_SAME * largest, _SMALLEST):
        room = largest / 10 if largest > 10 * _SMALLEST else 0.5
        low, high = low - room, high + room
    step = _step(high - low)
    first, last = low / step, high / step
    if round_ends:
        first, last = math.floor(first + _SAME), math.ceil(last - _SAME)
        low, high = first * step, last * step
    counts = range(math.ceil(first - _SAME), math.floor(last + _SAME) + 1)
    return Axis(low, high, start, end, tuple(count * step for count in counts))


def _step(span: float) -> float:
    """Find a round step of which a span has some four."""
    rough = span / _PARTS
    power: float = 10.0 ** math.floor(math.log10(rough))
    steps = (factor * power for factor in _STEPS if (factor, power) != _HALVES)
    return next(step for step in steps if step >= rough * (1 - _SAME))
