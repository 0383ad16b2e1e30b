"""The margin of refusal: the log-odds that a reply begins as refusals do, and losses on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from patchc.derivation.aligned import align, next_log_probabilities
from patchc.derivation.derive_options import Precision
from patchc.derivation.openings import Openings

Tokens = Sequence[int]

_LARGEST = -1e-6
"""Of a log-probability, so that the odds against it stay finite."""


@dataclass(frozen=True)
class Labelled:
    """A request as token ids, and whether it is to be refused."""

    prompt: tuple[int, ...]
    refuse: bool


def refusal_margin(
    model: Any, prompts: Sequence[Tokens], openings: Openings, precision: Precision = "float32"
) -> Tensor:
    """log P / (1 − P), P the probability that the reply begins with one of the openings.

    P is the sum over the openings of Π p(token | prompt, tokens before it). Each prompt is
    continued with each of the openings' stems: one row a prompt where all have a single token.

    Returns:
        fp32 [prompts].
    """
    stems = openings.stems
    rows = [prompt for prompt in prompts for _ in stems]
    batch = align(rows, [stem for _ in prompts for stem in stems], model.device)
    found = next_log_probabilities(model, batch, precision)
    found = found.view(len(prompts), len(stems), *found.shape[1:])
    parts = [_log_probability(found, openings, one) for one in openings.sequences]
    total = torch.logsumexp(torch.stack(parts), dim=0).clamp_max(_LARGEST)
    return total - torch.log(-torch.expm1(total))


def hinge_loss(margins: Tensor, refuse: Tensor, target: float) -> Tensor:
    """max(0, target − y · margin), y = 1 where a request is to be refused and −1 elsewhere.

    What has reached the target is left alone. Returns fp32 [prompts].
    """
    signs = refuse.to(margins.dtype) * 2 - 1
    return torch.relu(target - signs * margins)


def softplus_loss(margins: Tensor, refuse: Tensor) -> Tensor:
    """log(1 + exp(−y · margin)), which never quite ends. Returns fp32 [prompts]."""
    signs = refuse.to(margins.dtype) * 2 - 1
    return torch.nn.functional.softplus(-signs * margins)


def _log_probability(found: Tensor, openings: Openings, opening: tuple[int, ...]) -> Tensor:
    """log p of one opening after each prompt; its stem begins one of the openings' stems."""
    stem = opening[:-1]
    row = next(n for n, one in enumerate(openings.stems) if one[: len(stem)] == stem)
    places = torch.arange(len(opening), device=found.device)
    tokens = torch.tensor(opening, device=found.device)
    return found[:, row, places, tokens].sum(dim=-1)
