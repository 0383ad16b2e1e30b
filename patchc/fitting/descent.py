"""Gradient steps on the scales of a recipe (Adam).

The loss of a step has up to four terms: a hinge on the margin of refusal (the log-odds that a reply
begins as refusals do), the divergence from the base on anchors (replies of the base that should not
change), the loss of reference answers, and shrinkage of the applied deltas.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchc.derivation.aligned import response_loss
from patchc.derivation.anchor import Anchor, divergence
from patchc.derivation.examples import Example, Tokens
from patchc.derivation.margin import Openings, hinge_loss, refusal_margin
from patchc.errors import NumericError
from patchc.fitting.fit_options import FitOptions
from patchc.fitting.live import LiveModel
from patchc.fitting.loads import ANCHORS, margin_load, response_load
from patchc.fitting.memory import Room
from patchc.fitting.scales import ScaleGroups, Values, tidy
from patchc.layered.boundaries import HeldBoundaries
from patchc.layered.passes import Pass, Term

_FIRST, _SECOND, _SMALLEST = 0.9, 0.99, 1e-12
"""Adam's decay rates, low because steps are few, and the term that keeps its quotient finite."""


@dataclass(frozen=True)
class Lessons:
    """What to learn from some of the development requests, as tokens.

    Attributes:
        harmful, harmless: prompts to refuse, and prompts to answer.
        anchors: replies of the base that should not change.
        answers: harmless prompts with their reference answers.
    """

    harmful: tuple[Tokens, ...]
    harmless: tuple[Tokens, ...]
    anchors: tuple[Anchor, ...] = ()
    answers: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Step:
    """A point of the fit with Adam's state, from which the fit can continue.

    Attributes:
        number: steps taken before this point.
        values: the scales, shape (components, groups).
        first, second: Adam's moments.
        loss: of the batch that led here; None at the start.
        seconds: time spent up to here.
        validation: mean loss on the validation requests, if it was measured.
    """

    number: int
    values: Values
    first: Values
    second: Values
    loss: float | None
    seconds: float
    validation: float | None = None


@dataclass
class Descent:
    """Takes the steps of a fit: the scales of ``groups`` learn from ``lessons``.

    The steps are the same, bit for bit, whatever ``room`` lets the losses keep.
    """

    live: LiveModel
    room: Room
    groups: ScaleGroups
    lessons: Lessons
    openings: Openings
    options: FitOptions

    def __post_init__(self) -> None:
        start = self.groups.start()
        unit = np.abs(start).mean(axis=1, keepdims=True)
        self._unit = np.where(unit > 0, unit, 1.0)
        norms = self._norms()
        moved = (norms * start**2).sum()
        self._pull = norms / (moved if moved > 0 else max(norms.sum(), _SMALLEST))

    def begin(self) -> Step:
        """Return the point where the fit starts."""
        values = self.groups.start()
        return Step(0, values, np.zeros_like(values), np.zeros_like(values), None, 0.0)

    def take(self, step: Step) -> Step:
        """Take a step from a point, and copy the point's ``seconds``.

        Raises:
            NumericError: a loss or gradient is not finite, or a point has such a value.
        """
        loss, gradients = self._gradients(step)
        check_finite(loss + float(np.abs(gradients).sum()), "loss or a gradient", step.number)
        gradients = gradients + 2 * self.options.shrinkage * self._pull * step.values
        # In units of each component's scale, so that one rate serves both.
        gradients = gradients * self._unit
        number = step.number + 1
        first = _FIRST * step.first + (1 - _FIRST) * gradients
        second = _SECOND * step.second + (1 - _SECOND) * gradients**2
        move = first / (1 - _FIRST**number)
        move = move / (np.sqrt(second / (1 - _SECOND**number)) + _SMALLEST)
        values = step.values - self.options.learning_rate * self._unit * move
        return Step(number, values, first, second, loss, step.seconds)

    def _gradients(self, step: Step) -> tuple[float, Values]:
        """Compute the loss of the step's batch without shrinkage, and the scales' gradients."""
        options, lessons, model = self.options, self.lessons, self.live.model
        half = options.batch_size // 2
        draw = partial(_draw, seed=options.seed, step=step.number)
        harmful = draw(lessons.harmful, half, "harmful")
        harmless = draw(lessons.harmless, half, "harmless")
        anchors = draw(lessons.anchors, ANCHORS, "anchors")
        answers = draw(lessons.answers, half, "answers")
        self.live.set(self.groups.tensor_scales(tidy(step.values)))
        prompts = [*harmful, *harmless]
        margin = partial(self._margin_loss, prompts, len(harmful))
        jobs = [(Term(margin), margin_load(prompts, self.openings))]
        if anchors and options.anchor_weight:
            loss = partial(divergence, model, anchors)
            jobs.append((Term(loss, options.anchor_weight), response_load(anchors)))
        if answers and options.answer_weight:
            loss = partial(response_loss, model, answers)
            jobs.append((Term(loss, options.answer_weight), response_load(answers)))
        found, values = self.live.gradients(), list[float]()
        for terms, keeps in self.room.passes(jobs):
            values += Pass(model, terms, found, HeldBoundaries(), keeps).run()
        total = sum(term.weight * one for (term, _), one in zip(jobs, values, strict=True))
        return total, self.groups.gradients(found.by_tensor())

    def _margin_loss(self, prompts: Sequence[Tokens], harmful: int) -> Tensor:
        """Compute the loss of prompts of which the first are harmful."""
        margins = refusal_margin(self.live.model, prompts, self.openings)
        refuse = torch.arange(len(margins), device=margins.device) < harmful
        losses = hinge_loss(margins, refuse, self.options.target)
        return losses[:harmful].mean() + losses[harmful:].mean()

    def _norms(self) -> Values:
        """Compute the squared norm of each component's delta in each group, at scale 1."""
        norms = np.zeros_like(self.groups.start())
        for number, group in enumerate(self.groups.groups):
            for name in group.tensors:
                directions = self.live.entries[name].directions()
                norms[:, number] += [float(np.dot(one, one)) for one in directions]
        return norms


def check_finite(value: float, name: str, step: int) -> float:
    """Return the value; raises :class:`NumericError` if it is not finite."""
    if not math.isfinite(value):
        raise NumericError(
            f"fit: the {name} is {value} after {step} steps; lower the learning rate, or the "
            "scales that the recipe starts from"
        )
    return value


def _draw(items: Sequence[Any], count: int, stream: str, *, seed: int, step: int) -> list[Any]:
    """Draw batch number ``step`` of reshuffled passes over the items; all of them if they are few.

    A batch depends on its number alone, so a resumed run draws the same batches.
    """
    if len(items) <= count:
        return list(items)
    drawn = []
    for place in range(step * count, (step + 1) * count):
        turn, within = divmod(place, len(items))
        shuffled = random.Random(f"{stream} {seed} {turn}").sample(items, len(items))
        drawn.append(shuffled[within])
    return drawn
