"""Perplexities under a causal language model: of a text, and of answers to requests."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch

from patchc.derivation.examples import Example, pad
from patchc.errors import EvaluateError
from patchc.progress import Progress, ProgressEvent

_WINDOW = 1024
_TOGETHER = 8
_LARGEST = math.log(sys.float_info.max)


def encode_reference(tokenizer: Any, text: str) -> list[int]:
    """A reference text's tokens, special ones added as the tokenizer does.

    Raises:
        EvaluateError: there are fewer than two.
    """
    encoded: list[int] = tokenizer.encode(text, verbose=False)
    if len(encoded) < 2:
        raise EvaluateError(f"the reference text has {len(encoded)} tokens; give a longer one")
    return encoded


def perplexity(model: Any, encoded: Sequence[int], progress: Progress) -> float:
    """exp of the mean of −log p(token | tokens before it in its window), over all but the first.

    Windows have 1024 tokens, or as many as the model takes, and each begins half a window after
    the last, so that every token but those of the first window sees at least half a window. There
    are at least two tokens. What is no number, or too large for one, is infinity.
    """
    window = min(_WINDOW, _longest(model) or _WINDOW)
    tokens = torch.tensor([list(encoded)], device=model.device)
    loss, scored = 0.0, 1
    for first in range(0, len(encoded), max(1, window // 2)):
        part = tokens[:, first : first + window]
        new = first + part.shape[1] - scored
        with torch.inference_mode():
            logits = model(input_ids=part, use_cache=False).logits[0, -new - 1 : -1]
        losses = torch.nn.functional.cross_entropy(logits.float(), part[0, -new:], reduction="sum")
        loss += losses.item()
        scored += new
        progress(ProgressEvent("perplexity", scored, len(encoded), "tokens"))
        if scored == len(encoded):
            break
    return _exp(loss / (scored - 1))


def answer_perplexity(model: Any, answers: Sequence[Example], progress: Progress) -> float | None:
    """exp of the mean of −log p(token | request, tokens before it), over all answers' tokens.

    An answer is cut where the model's length ends. None where no token is left; what is no number,
    or too large for one, is infinity.
    """
    longest = _longest(model) or sys.maxsize
    fitting = [
        Example(one.prompt, one.response[: longest - len(one.prompt)])
        for one in answers
        if one.response and len(one.prompt) < longest
    ]
    fitting.sort(key=lambda one: len(one.prompt) + len(one.response))
    loss, scored = 0.0, 0
    for first in range(0, len(fitting), _TOGETHER):
        batch = pad(fitting[first : first + _TOGETHER], model.device)
        counted = batch.weights[:, 1:] > 0
        with torch.inference_mode():
            logits = model(
                input_ids=batch.tokens, attention_mask=batch.attended, use_cache=False
            ).logits[:, :-1][counted]
        tokens = batch.tokens[:, 1:][counted]
        loss += torch.nn.functional.cross_entropy(logits.float(), tokens, reduction="sum").item()
        scored += len(tokens)
        done = min(first + _TOGETHER, len(fitting))
        progress(ProgressEvent("answers", done, len(fitting), "answers"))
    return _exp(loss / scored) if scored else None


def _longest(model: Any) -> int | None:
    """Most tokens that a model takes, or None where its config does not say."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def _exp(mean: float) -> float:
    return math.exp(mean) if mean < _LARGEST else math.inf
