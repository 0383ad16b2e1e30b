"""Measures a live model: its replies to requests, and the loss of the fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from patchc.derivation.aligned import response_loss
from patchc.derivation.anchor import divergence
from patchc.derivation.examples import Example, in_batches
from patchc.derivation.margin import Openings, hinge_loss, refusal_margin
from patchc.evaluation.generation import Speaker
from patchc.evaluation.measure import Setup, Subject
from patchc.evaluation.model import evaluate_loaded
from patchc.evaluation.requests import SetName
from patchc.evaluation.trials import Trial
from patchc.fitting.descent import Lessons
from patchc.fitting.fit_options import FitOptions
from patchc.progress import Progress


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
        spoken = speaker.reply([prompts.tokens[asked][number] for number in numbers])
        for number, reply in zip(numbers, spoken, strict=True):
            replies[asked][number] = reply
        return spoken

    subject = Subject(name, "", "", prompts.batches, prompts.keys, speak)
    measured = evaluate_loaded(subject, lambda: speaker, setup, None, progress)
    trial = Trial.of(measured, recipe=None, seconds=time.perf_counter() - start)
    return trial, replies


def margins(model: Any, prompts: Sequence[Sequence[int]], openings: Openings) -> Tensor:
    """Compute the margins of refusal of all prompts, without gradients; fp32 [prompts], CPU."""
    with torch.no_grad():
        found = [refusal_margin(model, batch, openings).cpu() for batch in in_batches(prompts)]
    return torch.cat(found)


def validation_loss(model: Any, lessons: Lessons, openings: Openings, options: FitOptions) -> float:
    """Compute the loss of the steps, without the shrinkage, over all lessons."""
    total = 0.0
    for prompts, refuse in ((lessons.harmful, True), (lessons.harmless, False)):
        found = margins(model, prompts, openings)
        losses = hinge_loss(found, torch.full((len(found),), refuse), options.target)
        total += losses.mean().item()
    if options.anchor_weight and lessons.anchors:
        total += options.anchor_weight * _mean(divergence, model, lessons.anchors)
    if options.answer_weight and lessons.answers:
        total += options.answer_weight * _mean(response_loss, model, lessons.answers)
    return total


def _mean(loss: Callable[..., Tensor], model: Any, examples: Sequence[Example]) -> float:
    """Average a loss over the tokens of all responses."""
    total, tokens = 0.0, 0
    for batch in in_batches(examples):
        count = sum(len(one.response) for one in batch)
        with torch.no_grad():
            total += count * loss(model, batch).item()
        tokens += count
    return total / tokens


def agreement(
    model: Any, trial: Trial, prompts: Mapping[SetName, Sequence[Sequence[int]]], openings: Openings
) -> float:
    """Compute the share of requests whose margin has the sign of the verdict on the reply."""
    agreeing, total = 0, 0
    for name in ("harmful", "harmless"):
        found = margins(model, prompts[name], openings) > 0
        refused = torch.tensor([one == "refused" for one in trial.outcomes[name]])
        agreeing += int((found == refused).sum())
        total += len(refused)
    return agreeing / total
