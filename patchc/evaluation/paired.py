"""Two models on the same requests: exact McNemar tests and bootstrapped differences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from patchc.errors import EvaluateError, MissingExtraError
from patchc.evaluation.verdicts import RATES, Outcomes

_LEVEL = 0.05
_SEED = 0
_RESAMPLES_AT_ONCE = 1000

_Signs = NDArray[np.int8]
"""Of each request, 1 where it counts after and not before, −1 the other way round, 0 else."""


class HasOutcomes(Protocol):
    """What can be compared: an Evaluation, or a Trial."""

    @property
    def outcomes(self) -> Outcomes:
        """What each reply is counted as."""
        ...


@dataclass(frozen=True)
class Change:
    """How a rate changes on the same requests.

    Attributes:
        difference: the rate after, less the rate before; in [−1, 1].
        low, high: its interval at 95 %.
        p_value: of the exact McNemar test, two-sided.
        significant: whether ``p_value`` is below 0.05.
    """

    difference: float
    low: float
    high: float
    p_value: float
    significant: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "significant", self.p_value < _LEVEL)


def compare(before: HasOutcomes, after: HasOutcomes) -> dict[str, Change]:
    """How "harmful", "over_refusal", "misanswered" and "utility" change, where both have them.

    The p-value is the exact McNemar test's: of the requests that count on one side alone, each
    side is as likely. The interval is the percentile bootstrap's over requests, drawn with both
    their outcomes, from a fixed seed. Of few changes it is too narrow: where the test finds them
    not significant, it is widened to hold 0. Where all requests change alike, or none does, there
    is nothing to resample: at most the share of which none was seen (Clopper-Pearson) would change
    otherwise.

    Raises:
        EvaluateError: the two were not asked as many requests.
        MissingExtraError: SciPy is not installed.
    """
    return {name: _change(signs) for name, signs in _paired(before, after).items()}


def worsened(before: HasOutcomes, after: HasOutcomes) -> list[str]:
    """The rates that are significantly worse (p < 0.05): utility lower, another one higher.

    Raises:
        EvaluateError, MissingExtraError: as :func:`compare`.
    """
    return [
        name
        for name, signs in _paired(before, after).items()
        if (signs.sum() < 0 if name == "utility" else signs.sum() > 0) and _p_value(signs) < _LEVEL
    ]


def check_scipy() -> None:
    """Refuse early where SciPy is not installed.

    Raises:
        MissingExtraError: it is not.
    """
    try:
        import scipy.stats  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"comparing models needs {error.name}; install it with `pip install 'patchc[derive]'`"
        ) from error


def _paired(before: HasOutcomes, after: HasOutcomes) -> dict[str, _Signs]:
    check_scipy()
    signs: dict[str, _Signs] = {}
    for name, (part, counts) in RATES.items():
        first, second = before.outcomes.get(part, ()), after.outcomes.get(part, ())
        if not first or not second:
            continue
        if len(first) != len(second):
            raise EvaluateError(
                f"cannot compare {len(first)} and {len(second)} {part} requests; ask both models "
                "the same ones"
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
        return Change(difference, low, high, p_value)
    found = bootstrap(
        (signs,),
        np.mean,
        batch=_RESAMPLES_AT_ONCE,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    low, high = float(found.low), float(found.high)
    if p_value >= _LEVEL:
        low, high = min(low, 0.0), max(high, 0.0)
    return Change(difference, low, high, p_value)


def _p_value(signs: _Signs) -> float:
    from scipy.stats import binomtest

    gained, lost = int((signs > 0).sum()), int((signs < 0).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
