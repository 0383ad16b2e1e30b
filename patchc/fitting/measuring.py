"""A live model measured by generation, and what the margin says of the same requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from patchc.derivation.anchor import divergence
from patchc.derivation.answers import answer_loss
from patchc.derivation.margin import hinge_loss, refusal_margin
from patchc.derivation.openings import Openings
from patchc.evaluation.generation import Speaker
from patchc.evaluation.measure import Subject, measure
from patchc.evaluation.perplexity import answer_perplexity, encode_reference, perplexity
from patchc.evaluation.prompts import Prompts, encode_answers
from patchc.evaluation.requests import RequestSets, SetName
from patchc.evaluation.trials import Trial
from patchc.evaluation.verdicts import CheckedJudge
from patchc.fitting.descent import Lessons
from patchc.fitting.fit_options import FitOptions
from patchc.progress import Progress

_AT_ONCE = 16
"""Requests whose margins are taken together."""


@dataclass(frozen=True)
class Meter:
    """Asks one loaded model the development requests, again and again.

    Attributes:
        speaker: the loaded model.
        requests, prompts: what it is asked, as texts and as tokens.
        judge: gives the verdicts.
        reference: a text to take the perplexity of, or None.
    """

    speaker: Speaker
    requests: RequestSets
    prompts: Prompts
    judge: CheckedJudge
    reference: str | None

    def measure(self, name: str, progress: Progress) -> tuple[Trial, dict[SetName, list[str]]]:
        """The rates of the model as it is now, and its replies.

        Raises:
            EvaluateError: the judge fails, or a request does not fit.
        """
        start = time.perf_counter()
        tokens = self.prompts.tokens
        replies = {one: [""] * len(asked) for one, asked in self.requests.items()}

        def speak(part: SetName, numbers: Sequence[int]) -> list[str]:
            spoken = self.speaker.reply([tokens[part][number] for number in numbers])
            for number, reply in zip(numbers, spoken, strict=True):
                replies[part][number] = reply
            return spoken

        prompts = self.prompts
        subject = Subject(name, "", "", prompts.batches, prompts.keys, speak)
        measured = measure(subject, self.requests, self.judge, None, progress)
        model = self.speaker.model
        if self.reference is not None:
            text = encode_reference(prompts.tokenizer, self.reference)
            measured = replace(measured, perplexity=perplexity(model, text, progress))
        if answers := encode_answers(prompts, self.requests.harmless):
            found = answer_perplexity(model, answers, progress)
            measured = replace(measured, answer_perplexity=found)
        trial = Trial.of(measured, recipe=None, seconds=time.perf_counter() - start)
        return trial, replies


def margins(model: Any, prompts: Sequence[Sequence[int]], openings: Openings) -> torch.Tensor:
    """The margins of all prompts, without gradients; fp32 [prompts] on the CPU."""
    found = []
    with torch.no_grad():
        for first in range(0, len(prompts), _AT_ONCE):
            some = prompts[first : first + _AT_ONCE]
            found.append(refusal_margin(model, some, openings).cpu())
    return torch.cat(found)


def validation_loss(model: Any, lessons: Lessons, openings: Openings, options: FitOptions) -> float:
    """The loss of the steps, but for the shrinkage, over all lessons."""
    total = 0.0
    for prompts, refuse in ((lessons.harmful, True), (lessons.harmless, False)):
        found = margins(model, prompts, openings)
        losses = hinge_loss(found, torch.full((len(found),), refuse), options.target)
        total += losses.mean().item()
    with torch.no_grad():
        for weight, loss, items in (
            (options.anchor_weight, divergence, lessons.anchors),
            (options.answer_weight, answer_loss, lessons.answers),
        ):
            if weight and items:
                total += weight * _mean(model, loss, items)
    return total


def _mean(model: Any, loss: Callable[..., torch.Tensor], items: Sequence[Any]) -> float:
    """A loss over all items, a few at a time; by the tokens of their replies."""
    total, tokens = 0.0, 0
    for first in range(0, len(items), _AT_ONCE):
        some = items[first : first + _AT_ONCE]
        count = sum(len(one.reply) for one in some)
        total += count * loss(model, some).item()
        tokens += count
    return total / tokens


def agreement(model: Any, trial: Trial, asked: Any, openings: Openings) -> float:
    """The share of requests whose margin has the sign of the verdict on the generated reply."""
    agreeing, total = 0, 0
    for name in ("harmful", "harmless"):
        found = margins(model, asked[name], openings) > 0
        refused = torch.tensor([one == "refused" for one in trial.outcomes[name]])
        agreeing += int((found == refused).sum())
        total += len(refused)
    return agreeing / total
