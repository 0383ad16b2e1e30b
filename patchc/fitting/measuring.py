"""Measures a live model: its replies to requests, and the loss of the fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from patchc.derivation.aligned import response_loss
from patchc.derivation.anchor import divergence
from patchc.derivation.examples import Example, Tokens, in_batches
from patchc.derivation.margin import Openings, hinge_loss, refusal_margin
from patchc.evaluation.generation import Speaker
from patchc.evaluation.measure import Setup, Subject
from patchc.evaluation.model import ask, evaluate_loaded
from patchc.evaluation.requests import SetName
from patchc.evaluation.trials import Trial
from patchc.fitting.descent import Lessons
from patchc.fitting.fit_options import FitOptions
from patchc.fitting.loads import margin_load, response_load
from patchc.fitting.rounds import Job, evaluate_jobs
from patchc.layered.layered_model import LayeredModel
from patchc.progress import Progress

_Loss = Callable[..., Tensor]


def measure_live(
    speaker: Speaker, setup: Setup, name: str, progress: Progress
) -> tuple[Trial, dict[SetName, list[str]]]:
    """Measure the rates of a loaded model as it is now, and return them with its replies.

    Raises:
        EvaluateError: the judge fails, or a request does not fit.
    """
    start = time.perf_counter()
    prompts = setup.prompts
    replies = {one: [""] * len(asked) for one, asked in setup.requests.items()}

    def speak(asked: SetName, numbers: Sequence[int]) -> list[str]:
        spoken = ask(speaker, setup, asked, numbers)
        for number, reply in zip(numbers, spoken, strict=True):
            replies[asked][number] = reply
        return spoken

    subject = Subject(name, "", "", prompts.batches, prompts.keys, speak)
    measured = evaluate_loaded(subject, lambda: speaker, setup, None, progress)
    trial = Trial.of(measured, recipe=None, seconds=time.perf_counter() - start)
    return trial, replies


def margins(
    model: LayeredModel, sets: Sequence[Sequence[Tokens]], openings: Openings
) -> list[Tensor]:
    """Compute the margins of refusal of sets of prompts; for each, fp32 [prompts] on the CPU."""
    jobs = [_margin_jobs(model, prompts, openings) for prompts in sets]
    return [torch.cat(found) for found in _evaluate_sets(model, jobs)]


def validation_loss(
    model: LayeredModel, lessons: Lessons, openings: Openings, options: FitOptions
) -> float:
    """Compute the loss of the steps, without the shrinkage, over all lessons."""
    weighted: list[tuple[_Loss, float, Sequence[Example]]] = [
        (divergence, options.anchor_weight, lessons.anchors),
        (response_loss, options.answer_weight, lessons.answers),
    ]
    weighted = [one for one in weighted if one[1] and one[2]]
    jobs = [_margin_jobs(model, one, openings) for one in (lessons.harmful, lessons.harmless)]
    jobs += [_response_jobs(loss, model, examples) for loss, _, examples in weighted]
    # Together, so that a model that is read layer by layer is read for all of them at once.
    harmful, harmless, *along = _evaluate_sets(model, jobs)
    total = 0.0
    for margin, refuse in ((torch.cat(harmful), True), (torch.cat(harmless), False)):
        losses = hinge_loss(margin, torch.full((len(margin),), refuse), options.target)
        total += losses.mean().item()
    for found, (_, weight, examples) in zip(along, weighted, strict=True):
        total += weight * _mean(found, examples)
    return total


def agreement(
    model: LayeredModel,
    trial: Trial,
    prompts: Mapping[SetName, Sequence[Sequence[int]]],
    openings: Openings,
) -> float:
    """Compute the share of requests whose margin has the sign of the verdict on the reply."""
    agreeing, total = 0, 0
    names: tuple[SetName, ...] = ("harmful", "harmless")
    asked = [[tuple(one) for one in prompts[name]] for name in names]
    for name, found in zip(names, margins(model, asked, openings), strict=True):
        refused = torch.tensor([one == "refused" for one in trial.outcomes[name]])
        agreeing += int(((found > 0) == refused).sum())
        total += len(refused)
    return agreeing / total


def _margin_jobs(
    model: LayeredModel, prompts: Sequence[Tokens], openings: Openings
) -> list[Job[Tensor]]:
    return [
        Job(partial(refusal_margin, model, batch, openings), margin_load(batch, openings))
        for batch in in_batches(prompts)
    ]


def _response_jobs(
    loss: _Loss, model: LayeredModel, examples: Sequence[Example]
) -> list[Job[Tensor]]:
    return [
        Job(partial(loss, model, batch), response_load(batch)) for batch in in_batches(examples)
    ]


def _evaluate_sets(
    model: LayeredModel, sets: Sequence[Sequence[Job[Tensor]]]
) -> list[list[Tensor]]:
    """Evaluate the jobs of several sets together; results are on the CPU."""
    jobs = [job for each in sets for job in each]
    found = iter([one.cpu() for one in evaluate_jobs(model, jobs)])
    return [list(islice(found, len(each))) for each in sets]


def _mean(losses: Sequence[Tensor], examples: Sequence[Example]) -> float:
    """Average the losses of batches over the tokens of all responses."""
    total, tokens = 0.0, 0
    for loss, batch in zip(losses, in_batches(examples), strict=True):
        count = sum(len(one.response) for one in batch)
        total += count * loss.item()
        tokens += count
    return total / tokens
