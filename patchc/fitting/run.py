"""A fit from start to end on one open model: study the base, take steps, measure, choose."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from patchc.fitting.choice import Candidate, choose, judge_trial
from patchc.fitting.descent import Descent, Step, check_finite
from patchc.fitting.development import Studied
from patchc.fitting.fit_options import FitOptions
from patchc.fitting.fitted import Fitted
from patchc.fitting.inputs import Gathering
from patchc.fitting.live import LiveModel
from patchc.fitting.measuring import agreement, measure_live, validation_loss
from patchc.fitting.scales import ScaleGroups, tidy
from patchc.fitting.trace import PointLine, Trace
from patchc.progress import Progress, ProgressEvent
from patchc.recipe import MergeRecipe, Recipe

_BETWEEN_VALIDATIONS = 5
"""Steps from one validation to the next."""


@dataclass
class Fit:
    """The fit of one recipe's scales on the open model, which is the base again afterwards.

    Attributes:
        studied: the base.
        gathering: the entries that the recipe selects.
        recipe: the method; its scales are where the fit starts.
        options: how scales are fitted.
        trace: the known steps and points of this fit; new ones are added to it.
        progress: called after each step, and as points are measured.

    Raises:
        UnsupportedInputError: a tensor that takes part is no parameter of the model.
        UsageError: the recipe has different scales for tensors that are to share one.
    """

    studied: Studied
    gathering: Gathering
    recipe: Recipe | MergeRecipe
    options: FitOptions
    trace: Trace
    progress: Progress

    def __post_init__(self) -> None:
        entries, components = self.gathering.entries, self.gathering.components
        opened = self.studied.opened
        self._model = opened.model
        self._live = LiveModel(opened.model, opened.settable, entries)
        self._groups = ScaleGroups(self.recipe, components, list(entries), self.options.sharing)

    def best_loss(self) -> float:
        """Take the steps, and return the least validation loss.

        Raises:
            NumericError: a point has a value that is not finite.
        """
        try:
            _, steps = self._descend()
        finally:
            self._live.restore()
        return min(step.validation for step in steps if step.validation is not None)

    def run(self) -> Fitted:
        """Take the steps, measure the most promising points by generation, and choose.

        Raises:
            EvaluateError: the judge fails.
            NumericError: a point has a value that is not finite.
        """
        studied, options = self.studied, self.options
        try:
            ended, steps = self._descend()
            points = {step.number: step for step in _most_promising(steps, options)}
            candidates = tuple(map(self._measure, points.values()))
        finally:
            self._live.restore()
        best = choose(candidates, studied.trial, options.best_effort)
        tokenizer, openings = studied.setup.prompts.tokenizer, studied.openings
        return Fitted(
            base=studied.trial,
            candidates=candidates,
            best=best,
            recipe=self._groups.to_recipe(tidy(points[best.step].values)) if best else None,
            openings=tuple(tokenizer.decode(list(one)) for one in openings.sequences),
            covered=openings.covered,
            steps=steps[-1].number,
            seconds=steps[-1].seconds,
            ended=ended,
            losses=tuple((step.number, step.loss, step.validation) for step in steps),
        )

    def _descend(self) -> tuple[str, list[Step]]:
        """Take steps until the fit ends; return why it ended, and all steps.

        Steps in the trace are used again, up to the point where these options end the fit.
        """
        studied, options, trace = self.studied, self.options, self.trace
        descent = Descent(
            self._live, studied.opened.room, self._groups, studied.steps, studied.openings, options
        )
        steps: list[Step] = []
        while not (end := _end(steps, options)):
            known = trace.steps[len(steps)] if len(steps) < len(trace.steps) else None
            start = time.perf_counter()
            step = known or (descent.take(steps[-1]) if steps else descent.begin())
            if step.number % _BETWEEN_VALIDATIONS and step.number != options.steps:
                step = replace(step, validation=None)
            else:
                step = self._validated(step)
            if known is None:
                step = replace(step, seconds=step.seconds + time.perf_counter() - start)
                trace.add(step)
                self._report(step)
            steps.append(step)
        steps[-1] = self._validated(steps[-1])
        return end, steps

    def _measure(self, step: Step) -> Candidate:
        """Measure a point by generation, unless the trace has it."""
        studied = self.studied
        point = self.trace.points.get(step.number)
        if point is None:
            values = tidy(step.values)
            self._live.set(self._groups.tensor_scales(values))
            name = f"step {step.number}"
            trial, _ = measure_live(studied.opened.speaker, studied.setup, name, self.progress)
            trial = replace(trial, recipe=self._groups.to_recipe(values).to_json())
            prompts = studied.setup.prompts.tokens
            agreeing = agreement(self._model, trial, prompts, studied.openings)
            point = PointLine(step.number, trial, agreeing)
            self.trace.add(point)
        against, worse = judge_trial(point.trial, studied.trial, self.options.limits)
        assert step.validation is not None
        return Candidate(step.number, point.trial, step.validation, point.agreement, against, worse)

    def _validated(self, step: Step) -> Step:
        """Return a step with its loss on the validation requests."""
        if step.validation is not None:
            return step
        self._live.set(self._groups.tensor_scales(tidy(step.values)))
        lessons, openings = self.studied.validation, self.studied.openings
        loss = validation_loss(self._model, lessons, openings, self.options)
        return replace(step, validation=check_finite(loss, "validation loss", step.number))

    def _report(self, step: Step) -> None:
        """Report progress in steps, or in seconds if a time limit ends them."""
        done, total, unit = step.number, self.options.steps, "steps"
        if self.options.minutes is not None:
            total, unit = int(60 * self.options.minutes), "seconds"
            done = min(int(step.seconds), total)
        detail = f"loss {step.loss:.3f}" if step.loss is not None else ""
        self.progress(ProgressEvent("fit", done, total, unit, detail))


def _end(steps: list[Step], options: FitOptions) -> str:
    """Say why no further step is taken; empty if one is."""
    if not steps:
        return ""
    last = steps[-1]
    if last.number >= options.steps:
        return "all steps taken"
    if options.minutes is not None and last.seconds >= 60 * options.minutes:
        return "out of time"
    losses = [step.validation for step in steps if step.validation is not None]
    if len(losses) - 1 - losses.index(min(losses)) >= options.patience:
        return "no better validation"
    return ""


def _most_promising(steps: list[Step], options: FitOptions) -> list[Step]:
    """Choose the points of least validation loss and, if more than one is measured, the start.

    The start has moved the model least; the validation requests may be too few to show its worth.
    """
    validated = [step for step in steps if step.validation is not None]
    # Among equals the earlier step, which has moved the model less.
    best = sorted(validated, key=lambda step: (step.validation, step.number))[: options.candidates]
    if options.candidates > 1 and steps[0] not in best:
        best[-1] = steps[0]
    return best
