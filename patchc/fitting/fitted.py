"""What a fit found: the base, the measured points and the chosen one."""

from __future__ import annotations

from dataclasses import dataclass, field

from patchc.evaluation.trials import Trial
from patchc.fitting.choice import Candidate
from patchc.recipe import MergeRecipe, Recipe


@dataclass(frozen=True)
class Fitted:
    """What a fit found.

    Attributes:
        base: the base on the development requests.
        candidates: the measured points, the best on validation first.
        best: the chosen one; None where something speaks against each.
        recipe: of the chosen point; None without one.
        openings: how refusals begin, as texts.
        covered: share of the base's refusals that begin so.
        steps: steps taken.
        seconds: time spent on them.
        ended: why the steps ended.
        losses: for each point, its step, its batch's loss and its validation loss.
    """

    base: Trial
    candidates: tuple[Candidate, ...]
    best: Candidate | None
    recipe: Recipe | MergeRecipe | None
    openings: tuple[str, ...]
    covered: float
    steps: int
    seconds: float
    ended: str
    losses: tuple[tuple[int, float | None, float | None], ...] = field(
        default=(), metadata={"json": False}
    )
