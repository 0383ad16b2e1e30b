"""Adam on scales: the margin's hinge, an anchor to the base, reference answers, shrinkage."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchc.derivation.anchor import Anchor, divergence
from patchc.derivation.answers import Answer, answer_loss
from patchc.derivation.margin import hinge_loss, refusal_margin
from patchc.derivation.openings import Openings
from patchc.errors import NumericError
from patchc.fitting.fit_options import FitOptions
from patchc.fitting.live import LiveModel
from patchc.fitting.scales import ScaleGroups, Values, tidy

Tokens = tuple[int, ...]

_FIRST, _SECOND, _SMALLEST = 0.9, 0.99, 1e-12
"""Adam's decay rates (shorter than usual: steps are few), and what keeps its quotient finite."""
_ANCHORS = 8
"""Anchors in a step."""


@dataclass(frozen=True)
class Lessons:
    """What one part of the development requests has to teach, as tokens.

    Attributes:
        harmful, harmless: prompts to refuse, and not to refuse.
        anchors: replies of the base that are to stay as they are.
        answers: reference answers to harmless prompts.
    """

    harmful: tuple[Tokens, ...]
    harmless: tuple[Tokens, ...]
    anchors: tuple[Anchor, ...] = ()
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True)
class Step:
    """One point on the way, and what Adam knows there; enough to go on from.

    Attributes:
        number: steps taken before this point.
        values: the scales, shape (components, groups).
        first, second: Adam's moments.
        loss: of the batch that led here; None at the start.
        seconds: spent up to here.
        validation: mean loss on the validation part, where it was measured.
    """

    number: int
    values: Values
    first: Values
    second: Values
    loss: float | None
    seconds: float
    validation: float | None = None


def begin(groups: ScaleGroups) -> Step:
    """The point where a fit starts."""
    values = groups.start()
    return Step(0, values, np.zeros_like(values), np.zeros_like(values), None, 0.0)


class Descent:
    """The steps of a fit on a live model.

    Args:
        live: the model.
        groups: what is fitted.
        lessons: of the part that the steps see.
        openings: how refusals begin.
        options: how scales are fitted.
        norms: of each component and group, the squared norm of the delta; for the shrinkage.
    """

    def __init__(
        self,
        live: LiveModel,
        groups: ScaleGroups,
        lessons: Lessons,
        openings: Openings,
        options: FitOptions,
        norms: Values,
    ) -> None:
        self._live = live
        self._groups = groups
        self._lessons = lessons
        self._openings = openings
        self._options = options
        start = groups.start()
        unit = np.abs(start).mean(axis=1, keepdims=True)
        self._unit = np.where(unit > 0, unit, 1.0)
        moved = (norms * start**2).sum()
        self._pull = norms / (moved if moved > 0 else max(norms.sum(), _SMALLEST))

    def take(self, step: Step, seconds: float) -> Step:
        """The next point; ``seconds`` is what was spent before it.

        Raises:
            NumericError: a loss or slope is not finite, or a point has such a value.
        """
        loss, slopes = self._slopes(step)
        finite(loss + float(np.abs(slopes).sum()), "loss or a slope", step.number)
        slopes = slopes + 2 * self._options.shrinkage * self._pull * step.values
        # In units of each component's scale, so that one rate serves both.
        slopes = slopes * self._unit
        number = step.number + 1
        first = _FIRST * step.first + (1 - _FIRST) * slopes
        second = _SECOND * step.second + (1 - _SECOND) * slopes**2
        move = first / (1 - _FIRST**number)
        move = move / (np.sqrt(second / (1 - _SECOND**number)) + _SMALLEST)
        values = step.values - self._options.learning_rate * self._unit * move
        return Step(number, values, first, second, loss, seconds)

    def _slopes(self, step: Step) -> tuple[float, Values]:
        batch = _Batch(self._lessons, self._options, step.number)
        options, model = self._options, self._live.model
        self._live.set(self._groups.factors(tidy(step.values)))
        losses: list[Callable[[], Tensor]] = [
            lambda: batch.margin_loss(model, self._openings, options.target)
        ]
        if batch.anchors and options.anchor_weight:
            losses.append(lambda: options.anchor_weight * divergence(model, batch.anchors))
        if batch.answers and options.answer_weight:
            losses.append(lambda: options.answer_weight * answer_loss(model, batch.answers))
        total = 0.0
        with self._live.slopes() as found:
            # One at a time, so that the activations of one batch are held.
            for take in losses:
                loss = take()
                total += loss.item()
                if loss.requires_grad:
                    torch.autograd.backward(loss)
                del loss
        return total, self._groups.slopes(found)


def finite(value: float, what: str, step: int) -> float:
    """The value, if it is a number.

    Raises:
        NumericError: it is infinite or none.
    """
    if not math.isfinite(value):
        raise NumericError(
            f"fit: the {what} is {value} after {step} steps; lower the learning rate, or the "
            "scales that the recipe starts from"
        )
    return value


class _Batch:
    """The requests of one step, drawn by its number alone: a run that goes on draws the same."""

    def __init__(self, lessons: Lessons, options: FitOptions, step: int) -> None:
        half = options.batch_size // 2
        self._harmful = _draw(lessons.harmful, half, f"harmful {options.seed}", step)
        self._harmless = _draw(lessons.harmless, half, f"harmless {options.seed}", step)
        self.anchors = _draw(lessons.anchors, _ANCHORS, f"anchors {options.seed}", step)
        self.answers = _draw(lessons.answers, half, f"answers {options.seed}", step)

    def margin_loss(self, model: Any, openings: Openings, target: float) -> Tensor:
        prompts = [*self._harmful, *self._harmless]
        refuse = torch.tensor([True] * len(self._harmful) + [False] * len(self._harmless))
        margins = refusal_margin(model, prompts, openings)
        losses = hinge_loss(margins, refuse.to(margins.device), target)
        return losses[: len(self._harmful)].mean() + losses[len(self._harmful) :].mean()


def _draw(items: Sequence[Any], count: int, stream: str, step: int) -> list[Any]:
    """Batch number ``step`` of reshuffled passes over the items; all of them if they are few."""
    if len(items) <= count:
        return list(items)
    drawn = []
    for place in range(step * count, (step + 1) * count):
        turn, within = divmod(place, len(items))
        order = random.Random(f"{stream} {turn}").sample(range(len(items)), len(items))
        drawn.append(items[order[within]])
    return drawn
