"""A fit from start to end on one loaded model: study the base, take steps, measure, choose."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from patchc.checkpoint import Checkpoint
from patchc.derivation.base_model import name_tensors
from patchc.evaluation.trials import Trial
from patchc.fitting.choice import Candidate, choose, judge_trial
from patchc.fitting.descent import Descent, Step, begin, finite
from patchc.fitting.development import Development, check_base, study
from patchc.fitting.fit_options import FitOptions
from patchc.fitting.inputs import Gathering
from patchc.fitting.live import LiveModel
from patchc.fitting.measuring import Meter, agreement, validation_loss
from patchc.fitting.scales import ScaleGroups, Values, tidy
from patchc.fitting.trace import BaseLine, PointLine, Trace
from patchc.progress import Progress, ProgressEvent
from patchc.recipe import MergeRecipe, Recipe

_BETWEEN_VALIDATIONS = 5
"""Steps from one validation to the next."""


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
        seconds: spent on them.
        ended: why the steps ended.
        losses: of each point on the way its step, its batch's loss and its validation's.
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


@dataclass(frozen=True)
class Studied:
    """The base as it is loaded, how it was measured, and what its replies teach."""

    meter: Meter
    tensors: Mapping[str, Tensor]
    trial: Trial
    found: Development

    def open(
        self, gathering: Gathering, recipe: Recipe | MergeRecipe, options: FitOptions
    ) -> tuple[LiveModel, ScaleGroups]:
        """The model with entries to move, and what moves them."""
        live = LiveModel(self.meter.speaker.model, self.tensors, gathering.entries)
        names = list(gathering.entries)
        return live, ScaleGroups(recipe, gathering.components, names, options.sharing)


def study_base(
    base: Checkpoint, meter: Meter, options: FitOptions, trace: Trace, progress: Progress
) -> Studied:
    """Measure the base, unless the trace has it, and take from its replies what they teach.

    Raises:
        EvaluateError, DeriveError: the requests or the judge give nothing to fit on.
        UnsupportedInputError: the loaded model's parameters are not those that the base stores.
    """
    measured = trace.base
    if measured is None:
        measured = BaseLine(*meter.measure("the base", progress))
        trace.add(measured)
    check_base(measured.trial)
    model = meter.speaker.model
    found = study(model, meter.prompts, meter.requests, measured.replies, measured.trial, options)
    return Studied(meter, name_tensors(model, base), measured.trial, found)


def best_loss(
    studied: Studied,
    gathering: Gathering,
    recipe: Recipe | MergeRecipe,
    options: FitOptions,
    trace: Trace,
    progress: Progress,
) -> float:
    """The least validation loss of a fit of the recipe's scales, without generation.

    Raises:
        NumericError: a point has a value that is not finite.
    """
    live, groups = studied.open(gathering, recipe, options)
    try:
        _, steps = _descend(live, groups, studied.found, options, trace, progress)
    finally:
        live.restore()
    return min(step.validation for step in steps if step.validation is not None)


def fit_scales(
    studied: Studied,
    gathering: Gathering,
    recipe: Recipe | MergeRecipe,
    options: FitOptions,
    trace: Trace,
    progress: Progress,
) -> Fitted:
    """Fit the recipe's scales; the model is the base again afterwards.

    Raises:
        EvaluateError: the judge fails.
        NumericError: a point has a value that is not finite.
    """
    live, groups = studied.open(gathering, recipe, options)
    meter, found = studied.meter, studied.found
    try:
        ended, steps = _descend(live, groups, found, options, trace, progress)
        candidates = tuple(
            _measure(live, groups, found, step, studied.trial, meter, options, trace, progress)
            for step in _most_promising(steps, options)
        )
    finally:
        live.restore()
    best = choose(candidates, studied.trial, options.best_effort)
    values = next(s.values for s in steps if s.number == best.step) if best else None
    decode = meter.prompts.tokenizer.decode
    return Fitted(
        base=studied.trial,
        candidates=candidates,
        best=best,
        recipe=None if values is None else groups.to_recipe(tidy(values)),
        openings=tuple(decode(list(one)) for one in found.openings.sequences),
        covered=found.openings.covered,
        steps=steps[-1].number,
        seconds=steps[-1].seconds,
        ended=ended,
        losses=tuple((step.number, step.loss, step.validation) for step in steps),
    )


def _descend(
    live: LiveModel,
    groups: ScaleGroups,
    found: Development,
    options: FitOptions,
    trace: Trace,
    progress: Progress,
) -> tuple[str, list[Step]]:
    """Take steps until one of the ends is reached; says which end, and gives all steps up to it.

    What the trace holds is taken from it, as far as these options would have gone themselves.
    """
    descent = Descent(live, groups, found.steps, found.openings, options, _norms(groups, live))
    steps: list[Step] = []
    while True:
        if end := _end(steps, options):
            if steps[-1].validation is None:
                steps[-1] = _validated(steps[-1], live, groups, found, options)
            return end, steps
        known = trace.steps[len(steps)] if len(steps) < len(trace.steps) else None
        start = time.perf_counter()
        step = known or (descent.take(steps[-1], steps[-1].seconds) if steps else begin(groups))
        if not _is_validated(step.number, options):
            step = replace(step, validation=None)
        elif step.validation is None:
            step = _validated(step, live, groups, found, options)
        if known is None:
            step = replace(step, seconds=step.seconds + time.perf_counter() - start)
            trace.add(step)
            progress(_told(step, options))
        steps.append(step)


def _told(step: Step, options: FitOptions) -> ProgressEvent:
    """Progress in steps, or in seconds where time ends them."""
    detail = f"loss {step.loss:.3f}" if step.loss is not None else ""
    if options.minutes is None:
        return ProgressEvent("fit", step.number, options.steps, "steps", detail)
    total = int(60 * options.minutes)
    return ProgressEvent("fit", min(int(step.seconds), total), total, "seconds", detail)


def _validated(
    step: Step, live: LiveModel, groups: ScaleGroups, found: Development, options: FitOptions
) -> Step:
    """A step with its loss on the validation part."""
    live.set(groups.factors(tidy(step.values)))
    loss = validation_loss(live.model, found.validation, found.openings, options)
    return replace(step, validation=finite(loss, "validation loss", step.number))


def _is_validated(number: int, options: FitOptions) -> bool:
    return number % _BETWEEN_VALIDATIONS == 0 or number == options.steps


def _end(steps: list[Step], options: FitOptions) -> str:
    """Why no further step is taken; empty where one is."""
    if not steps:
        return ""
    last = steps[-1]
    if last.number >= options.steps:
        return "all steps taken"
    if options.minutes is not None and last.seconds >= 60 * options.minutes:
        return "out of time"
    validated = [step for step in steps if step.validation is not None]
    best = min(range(len(validated)), key=lambda place: validated[place].validation or 0.0)
    if len(validated) - 1 - best >= options.patience:
        return "no better validation"
    return ""


def _most_promising(steps: list[Step], options: FitOptions) -> list[Step]:
    """The points of least validation loss and, unless one alone is measured, the start.

    The start has moved the model least, which the validation part may be too small to see.
    """
    validated = [step for step in steps if step.validation is not None]
    # Of equals the earlier step, which has moved the model less.
    ranked = sorted(validated, key=lambda step: (step.validation, step.number))
    best = ranked[: options.candidates]
    if options.candidates > 1 and steps[0] not in best:
        best[-1] = steps[0]
    return best


def _measure(
    live: LiveModel,
    groups: ScaleGroups,
    found: Development,
    step: Step,
    base: Trial,
    meter: Meter,
    options: FitOptions,
    trace: Trace,
    progress: Progress,
) -> Candidate:
    point = trace.points.get(step.number)
    if point is None:
        values = tidy(step.values)
        live.set(groups.factors(values))
        trial, _ = meter.measure(f"step {step.number}", progress)
        trial = replace(trial, recipe=groups.to_recipe(values).to_json())
        agreeing = agreement(live.model, trial, found.prompts, found.openings)
        point = PointLine(step.number, trial, agreeing)
        trace.add(point)
    against, worse = judge_trial(point.trial, base, options.limits)
    assert step.validation is not None
    return Candidate(step.number, point.trial, step.validation, point.agreement, against, worse)


def _norms(groups: ScaleGroups, live: LiveModel) -> Values:
    """Of each component and group, the squared norm of the delta at scale 1."""
    by_tensor = {
        name: [float(np.dot(direction, direction)) for direction in each.directions()]
        for name, each in live.entries.items()
    }
    return np.array(
        [
            [sum(by_tensor[name][part] for name in group.tensors) for group in groups.groups]
            for part in range(len(groups.components))
        ]
    )
