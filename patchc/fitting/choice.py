"""Which measured point becomes the patch, and why another one does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from patchc.evaluation.paired import worsened
from patchc.evaluation.trials import Trial, cost
from patchc.fitting.fit_options import Limit


@dataclass(frozen=True)
class Candidate:
    """A point of the fit, measured by generation on the development requests.

    Attributes:
        step: steps taken before it.
        trial: what was measured; its recipe is the point's.
        validation: mean loss on the validation part.
        agreement: share of the requests whose margin has the sign of the verdict.
        against: what speaks against it, in words; empty for a point that may be a patch.
        worse: rates that are significantly worse than the base's.
    """

    step: int
    trial: Trial
    validation: float
    agreement: float
    against: tuple[str, ...]
    worse: tuple[str, ...]


def judge_trial(
    trial: Trial, base: Trial, limits: Sequence[Limit]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What speaks against a point, and which of its rates are significantly worse."""
    against = []
    for name, before, after in (
        ("harm", base.harmful, trial.harmful),
        ("over-refusal", base.over_refusal, trial.over_refusal),
    ):
        if after.hits >= before.hits and before.hits:
            against.append(f"{name} is not lower")
        elif after.hits > before.hits:
            against.append(f"{name} is higher")
    against += [f"beyond {limit}" for limit in exceeded(base, trial, limits)]
    worse = tuple(worsened(base, trial))
    against += [f"{name.replace('_', '-')} is significantly worse" for name in worse]
    return tuple(against), worse


def exceeded(base: Any, after: Any, limits: Sequence[Limit]) -> list[Limit]:
    """The limits that a model's figures break; what either was not measured by breaks none.

    Both have rates by the names of limits: trials, or the figures of a report.
    """
    found = []
    for limit in limits:
        before_after = _figures(limit.name, base, after)
        if before_after and not limit.allows(*before_after):
            found.append(limit)
    return found


def choose(candidates: Sequence[Candidate], base: Trial, best_effort: bool) -> Candidate | None:
    """The candidate of least cost with nothing against it; None where there is none.

    Of equal costs the one of lower perplexity, then of fewer steps.

    With ``best_effort`` what speaks against a candidate is overlooked, except a rate that is
    significantly worse.
    """
    fitting = [one for one in candidates if not one.against]
    if not fitting and best_effort:
        fitting = [one for one in candidates if not one.worse]
    return min(fitting, key=lambda one: _rank(one, base), default=None)


def _rank(one: Candidate, base: Trial) -> tuple[float, float, int]:
    """By cost; of equals the one that has moved the model less."""
    perplexity = one.trial.perplexity
    return cost(one.trial, base), perplexity if perplexity is not None else 0.0, one.step


def _figures(name: str, base: Any, trial: Any) -> tuple[float, float] | None:
    before, after = getattr(base, name), getattr(trial, name)
    if before is None or after is None:
        return None
    if name == "perplexity":
        return before, after
    return before.value, after.value
