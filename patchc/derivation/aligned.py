"""Log-probabilities of the tokens that follow prompts, computed for a batch of prompts at once.

Prompts are padded on the left and the tokens that follow them on the right, so all prompts end in
the same column. The logits of the columns before it are not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from patchc.derivation.examples import Example, Tokens
from patchc.derivation.head_places import chosen_log_probabilities, chosen_logits


def align(
    prompts: Sequence[Sequence[int]], following: Sequence[Sequence[int]], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Lay out prompts, none of them empty, each with the tokens that follow it.

    Returns:
        The tokens, int64 [rows, columns], and a mask of the same type and shape: 1 where there is
        a token, 0 where there is padding.
    """
    before, after = max(map(len, prompts)), max(map(len, following))
    tokens = torch.zeros(len(prompts), before + after, dtype=torch.int64)
    attended = torch.zeros_like(tokens)
    for row, (prompt, more) in enumerate(zip(prompts, following, strict=True)):
        first, end = before - len(prompt), before + len(more)
        tokens[row, first:end] = torch.tensor([*prompt, *more])
        attended[row, first:end] = 1
    return tokens.to(device), attended.to(device)


def next_log_probabilities(
    model: Any, prompts: Sequence[Sequence[int]], following: Sequence[Sequence[int]]
) -> Tensor:
    """Compute log p of every next token, from the prompts' last token on.

    Returns:
        fp32 [prompts, most tokens that follow + 1, vocabulary]; place i holds the distribution
        after the prompt and the first i tokens that follow it.
    """
    width = max(map(len, following)) + 1
    # Not in a caller's autocast; a model for bf16 products has its own.
    with torch.autocast(model.device.type, enabled=False):
        logits = chosen_logits(
            model,
            lambda states: states[:, -width:].contiguous(),
            **_inputs(prompts, following, model.device),
        )
    return torch.log_softmax(logits, dim=-1)


def likely_next(
    model: Any,
    prompts: Sequence[Sequence[int]],
    following: Sequence[Sequence[int]],
    ids: Tensor,
) -> Tensor:
    """Compute log p of chosen tokens at the places of :func:`next_log_probabilities`.

    Args:
        model: a model of transformers, or one that runs layer by layer.
        prompts, following: what comes before the places.
        ids: int64 [prompts, places, n], the tokens of each place.

    Returns:
        fp32 [prompts, places, n].
    """
    rows, width, count = ids.shape
    with torch.autocast(model.device.type, enabled=False):
        found = chosen_log_probabilities(
            model,
            lambda states: states[:, -width:].reshape(rows * width, -1),
            ids.view(-1, count).to(model.device),
            **_inputs(prompts, following, model.device),
        )
    return found.view(ids.shape)


def response_log_probabilities(model: Any, examples: Sequence[Example]) -> list[Tensor]:
    """Compute log p of every next token along each response; fp32 [response, vocabulary] each."""
    found = next_log_probabilities(model, *_along(examples))
    return [found[row, : len(example.response)] for row, example in enumerate(examples)]


def likely_in_responses(
    model: Any, examples: Sequence[Example], ids: Sequence[Tensor]
) -> list[Tensor]:
    """Compute log p of chosen tokens along each response.

    ``ids`` and the result have one tensor [response, n] for each example.
    """
    places, count = max(len(example.response) for example in examples), ids[0].shape[1]
    laid = torch.zeros(len(examples), places, count, dtype=torch.int64)
    for row, own in enumerate(ids):
        laid[row, : len(own)] = own
    found = likely_next(model, *_along(examples), laid)
    return [found[row, : len(example.response)] for row, example in enumerate(examples)]


def response_loss(model: Any, examples: Sequence[Example]) -> Tensor:
    """Compute the mean of −log p over the tokens of all responses; a scalar in fp32."""
    ids = [torch.tensor(example.response)[:, None] for example in examples]
    total = torch.zeros((), device=model.device)
    for likely in likely_in_responses(model, examples, ids):
        total = total - likely.sum()
    return total / sum(len(example.response) for example in examples)


def _along(examples: Sequence[Example]) -> tuple[list[Tokens], list[Tokens]]:
    """Return the prompts, and of the responses what comes before their last tokens."""
    return (
        [example.prompt for example in examples],
        [example.response[:-1] for example in examples],
    )


def _inputs(
    prompts: Sequence[Sequence[int]], following: Sequence[Sequence[int]], device: torch.device
) -> dict[str, Tensor]:
    tokens, attended = align(prompts, following, device)
    return {
        "input_ids": tokens,
        "attention_mask": attended,
        "position_ids": (attended.cumsum(1) - 1).clamp_min(0),
    }
