"""Negative preference optimisation (arXiv 2404.05868): ascent that fades where it has succeeded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from patchc.derivation.derive_options import Precision
from patchc.derivation.examples import Example, log_probabilities, pad


def npo_loss(likely: Tensor, before: Tensor, beta: float) -> Tensor:
    """(2/β) · mean log(1 + (π/π_base)^β).

    Args:
        likely, before: log-probabilities of the responses under the model and under the base,
            fp32 [examples].
        beta: how soon the loss fades; towards 0 the gradient is that of plain ascent on the sums
            of the responses' log-probabilities.
    """
    return torch.nn.functional.softplus(beta * (likely - before)).mean() * (2 / beta)


def npo_batch_loss(
    model: Any,
    examples: Sequence[Example],
    before: Mapping[Example, float],
    beta: float,
    precision: Precision,
) -> Tensor:
    """The loss of a batch, ``before`` the base's log-probabilities of its responses; a scalar."""
    likely = log_probabilities(model, pad(examples, model.device), precision)
    known = torch.tensor([before[example] for example in examples], device=likely.device)
    return npo_loss(likely, known, beta)


def base_log_probabilities(
    model: Any, examples: Sequence[Example], size: int, precision: Precision
) -> dict[Example, float]:
    """Each response's log-probability under a model as it is now, ``size`` examples at a time."""
    found: dict[Example, float] = {}
    for first in range(0, len(examples), size):
        some = examples[first : first + size]
        with torch.no_grad():
            likely = log_probabilities(model, pad(some, model.device), precision)
        found |= zip(some, likely.tolist(), strict=True)
    return found
