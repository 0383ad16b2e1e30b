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
    their outcomes, from a fixed seed. Where no request changes sides, the difference and both
    bounds are 0 and the p-value is 1: resampling knows only the changes that were seen, so the
    bounds then say nothing of rarer ones; read the intervals of the two rates beside them.

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
    from scipy.stats import bootstrap

    difference = float(signs.mean())
    if len(signs) < 2:
        return Change(difference, difference, difference, _p_value(signs))
    found = bootstrap(
        (signs,),
        np.mean,
        batch=_RESAMPLES_AT_ONCE,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return Change(difference, float(found.low), float(found.high), _p_value(signs))


def _p_value(signs: _Signs) -> float:
    from scipy.stats import binomtest

    gained, lost = int((signs > 0).sum()), int((signs < 0).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
