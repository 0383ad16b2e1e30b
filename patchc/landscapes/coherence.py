"""Which replies are coherent, by the model before it was moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from patchc.derivation.aligned import likely_in_responses
from patchc.derivation.examples import Example
from patchc.evaluation.texts import is_degenerate

_TOGETHER = 64


def are_coherent(
    model: Any,
    prompts: Sequence[Sequence[int]],
    spoken: Sequence[Sequence[int]],
    replies: Sequence[str],
) -> list[bool]:
    """Judge whether replies are coherent.

    A reply is incoherent if it is empty or loops (:func:`patchc.evaluation.texts.is_degenerate`),
    or if the model gives its tokens a mean of −log p above ½ · log V, where V is the number of
    tokens that it knows. A guess among all tokens has log V, text that the model finds ordinary 1
    to 3, so that half is between them for every vocabulary. The rule is our own.

    Args:
        model: the base, unmoved.
        prompts: token ids of the requests.
        spoken: token ids of the replies.
        replies: the replies' texts.
    """
    found = [not is_degenerate(reply) for reply in replies]
    asked = [number for number, fine in enumerate(found) if fine and spoken[number]]
    # Shortest first, so that little is padded; the order decides no verdict but by rounding.
    asked.sort(key=lambda number: len(prompts[number]) + len(spoken[number]))
    bound = math.log(model.get_input_embeddings().num_embeddings) / 2
    for first in range(0, len(asked), _TOGETHER):
        batch = asked[first : first + _TOGETHER]
        examples = [Example(tuple(prompts[one]), tuple(spoken[one])) for one in batch]
        own = [torch.tensor(example.response)[:, None] for example in examples]
        with torch.inference_mode():
            likely = likely_in_responses(model, examples, own)
        for number, one in zip(batch, likely, strict=True):
            found[number] = -one.mean().item() <= bound
    return found
