"""Reference answers: how likely a model is to give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from patchc.derivation.aligned import align, next_log_probabilities
from patchc.derivation.derive_options import Precision

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """A prompt and the answer it should have, as token ids; neither is empty."""

    prompt: Tokens
    reply: Tokens


def answer_loss(model: Any, answers: Sequence[Answer], precision: Precision = "float32") -> Tensor:
    """−log p of a token of the answers, averaged over all their tokens; a scalar in fp32."""
    batch = align(
        [one.prompt for one in answers], [one.reply[:-1] for one in answers], model.device
    )
    found = next_log_probabilities(model, batch, precision)
    total, tokens = found.new_zeros(()), 0
    for row, one in enumerate(answers):
        places = found[row, : len(one.reply)]
        total = (
            total - places.gather(-1, torch.tensor(one.reply, device=places.device)[:, None]).sum()
        )
        tokens += len(one.reply)
    return total / tokens
