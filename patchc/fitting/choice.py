"""Chooses the measured point of a fit that becomes the patch, with reasons against the others."""

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
        validation: mean loss on the requests that the steps did not see.
        agreement: share of the requests whose margin of refusal has the sign of the verdict.
        against: what speaks against it, in words; empty if it may become the patch.
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
    """Find what speaks against a point, and which of its rates are significantly worse."""
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
    worse = tuple(worsened(base.outcomes, trial.outcomes))
    against += [f"{name.replace('_', '-')} is significantly worse" for name in worse]
    return tuple(against), worse


def exceeded(base: Any, after: Any, limits: Sequence[Limit]) -> list[Limit]:
    """Find the limits that a model's figures break; a figure that was not measured breaks none.

    ``base`` and ``after`` have rates by the names of limits: trials, or the figures of a report.
    """
    found = []
    for limit in limits:
        figures = getattr(base, limit.name), getattr(after, limit.name)
        if None in figures:
            continue
        if limit.name != "perplexity":
            figures = figures[0].value, figures[1].value
        if not limit.allows(*figures):
            found.append(limit)
    return found


def choose(candidates: Sequence[Candidate], base: Trial, best_effort: bool) -> Candidate | None:
    """Choose the candidate of least cost with nothing against it; None if there is none.

    Among equal costs the lower perplexity wins, then the fewer steps, because they have moved the
    model less. With ``best_effort``, only a rate that is significantly worse excludes a candidate.
    """

    def rank(one: Candidate) -> tuple[float, float, int]:
        perplexity = one.trial.perplexity
        return cost(one.trial, base), 0.0 if perplexity is None else perplexity, one.step

    allowed = [one for one in candidates if not one.against]
    if not allowed and best_effort:
        allowed = [one for one in candidates if not one.worse]
    return min(allowed, key=rank, default=None)
