"""Prompts and what follows them as one batch, with all prompts ending in the same column."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from patchc.derivation.derive_options import Precision

Tokens = Sequence[int]


@dataclass(frozen=True)
class Aligned:
    """Prompts padded on the left, what follows them on the right.

    Attributes:
        tokens: int64 [rows, columns].
        attended: int64 [rows, columns]; 1 where there is a token, 0 where there is padding.
        places: int64 [rows, columns]; the position of each token in its row.
        following: columns that hold what follows the prompts; may be 0.
    """

    tokens: Tensor
    attended: Tensor
    places: Tensor
    following: int


def align(prompts: Sequence[Tokens], following: Sequence[Tokens], device: torch.device) -> Aligned:
    """Lay out prompts, none of them empty, each with the tokens that follow it."""
    before, after = max(map(len, prompts)), max(map(len, following))
    tokens = torch.zeros(len(prompts), before + after, dtype=torch.int64)
    attended = torch.zeros_like(tokens)
    for row, (prompt, more) in enumerate(zip(prompts, following, strict=True)):
        first, end = before - len(prompt), before + len(more)
        tokens[row, first:end] = torch.tensor([*prompt, *more])
        attended[row, first:end] = 1
    places = (attended.cumsum(1) - 1).clamp_min(0)
    return Aligned(tokens.to(device), attended.to(device), places.to(device), after)


def next_log_probabilities(model: Any, batch: Aligned, precision: Precision = "float32") -> Tensor:
    """log p of every next token, from the prompts' last place on.

    Returns:
        fp32 [rows, following + 1, vocabulary]; place i is what comes after the prompt and the
        first i tokens that follow it.
    """
    width = batch.following + 1
    settings = {"logits_to_keep": width} if _keeps_logits(type(model)) else {}
    autocast = torch.autocast(
        batch.tokens.device.type, torch.bfloat16, enabled=precision == "bfloat16"
    )
    with autocast, _contiguous_head(model), _deterministic_attention(batch.tokens.device):
        logits = model(
            input_ids=batch.tokens,
            attention_mask=batch.attended,
            position_ids=batch.places,
            use_cache=False,
            **settings,
        ).logits
    return torch.log_softmax(logits[:, -width:].float(), dim=-1)


@contextmanager
def _contiguous_head(model: Any) -> Iterator[None]:
    """Hand the output head contiguous states: of others torch copies the head once a row."""
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _head, states: (states[0].contiguous(),))
    try:
        yield
    finally:
        handle.remove()


def _deterministic_attention(device: torch.device) -> AbstractContextManager[None]:
    """Attention whose gradients are deterministic; on CUDA the fused kernels' are not."""
    if device.type == "cuda" and torch.is_grad_enabled():
        context: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
        return context
    return nullcontext()


def _keeps_logits(kind: Any) -> bool:
    """Whether a model's class can leave out the logits of earlier places, most of the work."""
    return "logits_to_keep" in inspect.signature(kind.forward).parameters
