"""Rates with their uncertainty, over a whole set and by kind of request."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from patchc.evaluation.requests import RequestSets
from patchc.evaluation.verdicts import RATES, Outcomes

_Z = 1.959963984540054
"""The normal distribution's 97.5 % point: two-sided 95 %."""


@dataclass(frozen=True)
class Rate:
    """A share of requests, with the Wilson score interval at 95 %.

    Attributes:
        hits: requests that count.
        total: requests in all, at least 1.
        value: hits / total.
        low, high: the interval (Wilson 1927): (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n).
            It covers the sampling of requests and nothing else.

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
            raise ValueError(f"{self.hits} of {self.total} is no rate")
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

    @property
    def percent(self) -> str:
        """The value in percent, with one digit after the point."""
        return f"{100 * self.value:.1f} %"

    @property
    def with_interval(self) -> str:
        """The same, with the interval's bounds."""
        return f"{self.percent} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


KindRate = Literal["harmful", "harmless", "misanswered", "utility"]

Kinds = dict[KindRate, dict[str, Rate]]
"""Rates by kind of request, for the sets whose requests name kinds: "harmful" requests that were
not refused, "harmless" ones that were, "utility" questions that were right, and "misanswered"
harmless requests."""


def rate(hits: Iterable[bool]) -> Rate:
    """Return the share of true values; there must be at least one value."""
    counted = list(hits)
    return Rate(sum(counted), len(counted))


def rates_by_kind(requests: RequestSets, outcomes: Outcomes) -> Kinds:
    """Return the rates of every kind, sorted by name; sets without kinds are left out.

    Requests that name no kind are not counted.
    """
    sets = dict(requests.items())
    found: Kinds = {}
    for name, (set_name, counts) in RATES.items():
        hits: dict[str, list[bool]] = {}
        asked = zip(sets.get(set_name, ()), outcomes.get(set_name, ()), strict=False)
        for request, outcome in asked:
            if request.kind is not None:
                hits.setdefault(request.kind, []).append(counts(outcome))
        if hits:
            key: KindRate = "harmless" if name == "over_refusal" else name
            found[key] = {kind: rate(hits[kind]) for kind in sorted(hits)}
    return found
