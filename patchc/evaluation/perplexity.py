"""Perplexities under a causal language model: of a text, and of answers to requests."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch

from patchc.derivation.examples import Example, pad
from patchc.errors import EvaluateError
from patchc.evaluation.generation import stated_length
from patchc.progress import Progress, ProgressEvent

WINDOW = 1024
"""Most tokens of a text that pass the model at once."""
TOGETHER = 8
"""Answers that do."""
_LARGEST = math.log(sys.float_info.max)


def encode_reference(tokenizer: Any, text: str) -> list[int]:
    """Encode a reference text, with the special tokens that the tokenizer adds.

    Raises:
        EvaluateError: there are fewer than two.
    """
    encoded: list[int] = tokenizer.encode(text, verbose=False)
    if len(encoded) < 2:
        raise EvaluateError(f"the reference text has {len(encoded)} tokens; give a longer one")
    return encoded


def perplexity(model: Any, encoded: Sequence[int], progress: Progress) -> float:
    """Return exp of the mean of −log p(token | tokens before it in its window).

    The mean is over all tokens but the first; there are at least two. A window has 1024 tokens, or
    as many as the model takes, and begins half a window after the last one. So every token outside
    the first window sees at least half a window. A result that overflows or is NaN is infinity.
    """
    window = min(WINDOW, stated_length(model.config) or WINDOW)
    tokens = torch.tensor([list(encoded)], device=model.device)
    loss, scored = 0.0, 1
    for first in range(0, len(encoded), max(1, window // 2)):
        seen = tokens[:, first : first + window]
        new = first + seen.shape[1] - scored
        with torch.inference_mode():
            logits = model(input_ids=seen, use_cache=False).logits[0, -new - 1 : -1]
        losses = torch.nn.functional.cross_entropy(logits.float(), seen[0, -new:], reduction="sum")
        loss += losses.item()
        scored += new
        progress(ProgressEvent("perplexity", scored, len(encoded), "tokens"))
        if scored == len(encoded):
            break
    return _exp(loss / (scored - 1))


def answer_perplexity(model: Any, answers: Sequence[Example], progress: Progress) -> float | None:
    """Return exp of the mean of −log p(token | request, tokens before it), over all answers.

    An answer is cut where the model's length ends. None if no token is left. A result that
    overflows or is NaN is infinity.
    """
    longest = stated_length(model.config) or sys.maxsize
    fitting = [
        Example(one.prompt, one.response[: longest - len(one.prompt)])
        for one in answers
        if one.response and len(one.prompt) < longest
    ]
    fitting.sort(key=lambda one: len(one.prompt) + len(one.response))
    loss, scored = 0.0, 0
    for first in range(0, len(fitting), TOGETHER):
        batch = pad(fitting[first : first + TOGETHER], model.device)
        counted = batch.weights[:, 1:] > 0
        with torch.inference_mode():
            # Padding comes last, and no token looks ahead, so no mask is needed.
            logits = model(input_ids=batch.tokens, use_cache=False).logits[:, :-1][counted]
        tokens = batch.tokens[:, 1:][counted]
        loss += torch.nn.functional.cross_entropy(logits.float(), tokens, reduction="sum").item()
        scored += len(tokens)
        done = min(first + TOGETHER, len(fitting))
        progress(ProgressEvent("answers", done, len(fitting), "answers"))
    return _exp(loss / scored) if scored else None


def _exp(mean: float) -> float:
    return math.exp(mean) if mean < _LARGEST else math.inf
