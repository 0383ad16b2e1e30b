"""Compares two models on the same requests: exact McNemar tests, bootstrapped differences."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from patchc.errors import EvaluateError, import_errors
from patchc.evaluation.verdicts import RATES, Outcomes

_LEVEL = 0.05
_SEED = 0
_RESAMPLES_AT_ONCE = 1000

_Signs = NDArray[np.int8]
"""One sign per request: 1 if it counts only after, −1 if only before, 0 otherwise."""


@dataclass(frozen=True)
class Change:
    """How a rate changes on the same requests.

    Attributes:
        difference: the rate after minus the rate before, in [−1, 1].
        low, high: its interval at 95 %.
        p_value: of the two-sided exact McNemar test.
        significant: whether ``p_value`` is below 0.05.
    """

    difference: float
    low: float
    high: float
    p_value: float
    significant: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "significant", self.p_value < _LEVEL)

    @property
    def points(self) -> str:
        """The difference in percentage points, with the interval's bounds, each with its sign."""
        points = (100 * value for value in (self.difference, self.low, self.high))
        between, low, high = (f"{value:+.1f}" for value in points)
        return f"{between} [{low}, {high}]"


def compare(before: Outcomes, after: Outcomes) -> dict[str, Change]:
    """Return how "harmful", "over_refusal", "misanswered" and "utility" change, if both have them.

    The p-value is that of the exact McNemar test, whose null hypothesis is that a request that
    counts for one model alone is as likely to count for either. The interval is the percentile
    bootstrap over requests, each drawn with both outcomes, from a fixed seed. It is too narrow for
    few changes, so it is widened to hold 0 if the test finds them not significant. If all requests
    change alike, or none does, there is nothing to resample. The interval then allows for the share
    of other changes that may have gone unseen (Clopper-Pearson).

    Raises:
        EvaluateError: the two were asked different numbers of requests.
        MissingExtraError: SciPy is not installed.
    """
    return {name: _change(signs) for name, signs in _paired(before, after).items()}


def worsened(before: Outcomes, after: Outcomes) -> list[str]:
    """Return the rates that are significantly worse (p < 0.05): utility lower, others higher.

    Raises:
        EvaluateError, MissingExtraError: as :func:`compare`.
    """
    return [
        name
        for name, signs in _paired(before, after).items()
        if (signs.sum() < 0 if name == "utility" else signs.sum() > 0) and _p_value(signs) < _LEVEL
    ]


def check_scipy() -> None:
    """Raise MissingExtraError early if SciPy is not installed."""
    with import_errors("comparing models", "derive"):
        import scipy.stats  # noqa: F401


def _paired(before: Outcomes, after: Outcomes) -> dict[str, _Signs]:
    check_scipy()
    signs: dict[str, _Signs] = {}
    for name, (set_name, counts) in RATES.items():
        first, second = before.get(set_name, ()), after.get(set_name, ())
        if not first or not second:
            continue
        if len(first) != len(second):
            raise EvaluateError(
                f"cannot compare {len(first)} and {len(second)} {set_name} requests; ask both "
                "models the same ones"
            )
        pairs = zip(first, second, strict=True)
        signs[name] = np.array([counts(new) - counts(old) for old, new in pairs], np.int8)
    return signs


def _change(signs: _Signs) -> Change:
    from scipy.stats import binomtest, bootstrap

    difference, p_value = float(signs.mean()), _p_value(signs)
    if (signs == signs[0]).all():
        unseen = float(binomtest(0, len(signs)).proportion_ci(1 - _LEVEL).high)
        room = unseen * (1 + abs(difference))
        low, high = max(-1.0, difference - room), min(1.0, difference + room)
    else:
        rng = np.random.default_rng(_SEED)
        found = bootstrap(
            (signs,), np.mean, batch=_RESAMPLES_AT_ONCE, method="percentile", rng=rng
        ).confidence_interval
        low, high = float(found.low), float(found.high)
        if p_value >= _LEVEL:
            low, high = min(low, 0.0), max(high, 0.0)
    return Change(difference, low, high, p_value)


def _p_value(signs: _Signs) -> float:
    from scipy.stats import binomtest

    gained, lost = int((signs > 0).sum()), int((signs < 0).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
