"""Shares with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

_Z = 1.959963984540054
"""The normal distribution's 97.5 % point: two-sided 95 %."""


@dataclass(frozen=True)
class Rate:
    """``hits`` of ``total`` (at least 1), with the Wilson score interval at 95 %.

    Attributes:
        value: hits / total.
        low, high: the interval (Wilson 1927): (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n).
            The sampling of requests is all that it covers.

    Raises:
        ValueError: ``hits`` is negative or above ``total``, or both are 0.
    """

    hits: int
    total: int
    value: float = field(init=False)
    low: float = field(init=False)
    high: float = field(init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.hits <= self.total or not self.total:
            raise ValueError(f"{self.hits} of {self.total} is no share")
        n, p = self.total, self.hits / self.total
        square = _Z * _Z
        middle = p + square / (2 * n)
        spread = _Z * math.sqrt(p * (1 - p) / n + square / (4 * n * n))
        for name, value in (
            ("value", p),
            ("low", 0.0 if self.hits == 0 else (middle - spread) / (1 + square / n)),
            ("high", 1.0 if self.hits == n else (middle + spread) / (1 + square / n)),
        ):
            object.__setattr__(self, name, value)


def rate(hits: Iterable[bool]) -> Rate:
    """The share of true among a set that is not empty."""
    counted = list(hits)
    return Rate(sum(counted), len(counted))
