"""Log-probabilities of the tokens that follow prompts, computed for a batch of prompts at once.

Prompts are padded on the left and the tokens that follow them on the right, so all prompts end in
the same column. The logits of the columns before it are not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from patchc.derivation.examples import Example


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
    tokens, attended = align(prompts, following, model.device)
    width = max(map(len, following)) + 1

    def choose(_head: Any, states: tuple[Tensor]) -> tuple[Tensor]:
        return (states[0][:, -width:].contiguous(),)

    hook = model.get_output_embeddings().register_forward_pre_hook(choose)
    # Not in a caller's autocast; a model for bf16 products has its own.
    with torch.autocast(model.device.type, enabled=False):
        try:
            logits = model(
                input_ids=tokens,
                attention_mask=attended,
                position_ids=(attended.cumsum(1) - 1).clamp_min(0),
                use_cache=False,
            ).logits
        finally:
            hook.remove()
    return torch.log_softmax(logits.float(), dim=-1)


def response_log_probabilities(model: Any, examples: Sequence[Example]) -> list[Tensor]:
    """Compute log p of every next token along each response; fp32 [response, vocabulary] each."""
    prompts = [example.prompt for example in examples]
    before_last = [example.response[:-1] for example in examples]
    found = next_log_probabilities(model, prompts, before_last)
    return [found[row, : len(example.response)] for row, example in enumerate(examples)]


def response_loss(model: Any, examples: Sequence[Example]) -> Tensor:
    """Compute the mean of −log p over the tokens of all responses; a scalar in fp32."""
    total = torch.zeros((), device=model.device)
    found = response_log_probabilities(model, examples)
    for places, example in zip(found, examples, strict=True):
        tokens = torch.tensor(example.response, device=places.device)
        total = total - places.gather(-1, tokens[:, None]).sum()
    return total / sum(len(example.response) for example in examples)
