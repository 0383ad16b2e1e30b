"""Multiple choice: which choice a model finds the most probable reply to a question."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch

from patchc.derivation.aligned import likely_next
from patchc.derivation.examples import Example, Tokens, in_batches, log_probabilities, pad
from patchc.errors import EvaluateError
from patchc.evaluation.generation import Speaker, stated_length
from patchc.evaluation.prompts import Choices, Prompts
from patchc.evaluation.requests import Request


def choose(
    speaker: Speaker, prompts: Prompts, asked: Sequence[Request], numbers: Sequence[int]
) -> list[str]:
    """Choose the likeliest choice of each of some utility questions, all of which have choices.

    That is the choice whose log-likelihood after the request, divided by its number of characters,
    is the highest (acc_norm of lm-evaluation-harness); of equals the first. NaN is the lowest.

    Args:
        speaker: the loaded model.
        prompts: all requests, encoded.
        asked: all utility questions.
        numbers: those to ask now, into ``asked``.

    Raises:
        EvaluateError: a question with a choice is longer than the model takes.
        UnsupportedInputError: the model has no embedding for a token.
    """
    tokens = [tuple(prompts.tokens["utility"][number]) for number in numbers]
    choices = [prompts.choices["utility"][number] for number in numbers]
    some = [asked[number] for number in numbers]
    longest = stated_length(speaker.model.config) or sys.maxsize
    for request, prompt, each in zip(some, tokens, choices, strict=True):
        length = len(prompt) + max(map(len, each))
        if length > longest:
            raise EvaluateError(
                f"{request.source}: {length} tokens with its longest choice do not fit the model's "
                f"length of {longest}; shorten the question"
            )
        for one in (prompt, *each):
            speaker.check(one)
    with torch.inference_mode():
        found = log_likelihoods(speaker.model, tokens, choices)
    return [_best(request.choices, each) for request, each in zip(some, found, strict=True)]


def _best(choices: Sequence[str], likely: Sequence[float]) -> str:
    scores = [
        -math.inf if math.isnan(value) else value / len(choice)
        for choice, value in zip(choices, likely, strict=True)
    ]
    return choices[scores.index(max(scores))]


def log_likelihoods(
    model: Any, prompts: Sequence[Tokens], choices: Sequence[Choices]
) -> list[list[float]]:
    """Compute log p(choice | prompt), summed over the choice's tokens, of every choice.

    Questions all of whose choices are single tokens pass the model once; the others once for each
    choice.
    """
    short = [number for number, each in enumerate(choices) if max(map(len, each)) == 1]
    found: list[list[float]] = [[] for _ in choices]
    if short:
        most = max(len(choices[number]) for number in short)
        ids = [[one for (one,) in choices[number]] for number in short]
        laid = torch.tensor([[each + each[:1] * (most - len(each))] for each in ids])
        asked = [prompts[number] for number in short]
        likely = likely_next(model, asked, [()] * len(asked), laid)[:, 0].tolist()
        for number, row in zip(short, likely, strict=True):
            found[number] = row[: len(choices[number])]
    rows = [
        (number, Example(prompts[number], choice))
        for number, each in enumerate(choices)
        if number not in set(short)
        for choice in each
    ]
    for batch in in_batches(rows):
        likely = log_probabilities(model, pad([row for _, row in batch], model.device)).tolist()
        for (number, _), value in zip(batch, likely, strict=True):
            found[number].append(value)
    return found
