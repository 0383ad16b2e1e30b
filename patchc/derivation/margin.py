"""The margin of refusal: the log-odds that a reply begins as refusals do, and losses on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from patchc.derivation.aligned import align, next_log_probabilities
from patchc.derivation.openings import Openings
from patchc.derivation.options import Precision

Tokens = Sequence[int]

_LARGEST = -1e-6
"""Of a log-probability, so that the odds against it stay finite."""
_AT_ONCE = 16
"""Requests whose margins are taken together."""


@dataclass(frozen=True)
class Labelled:
    """A request as token ids.

    Attributes:
        prompt: the token ids.
        refuse: whether it is to be refused.
        held: whether it need only stay where the model has it, if that is right.
    """

    prompt: tuple[int, ...]
    refuse: bool
    held: bool = False


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


def margins_of(
    model: Any, prompts: Sequence[Tokens], openings: Openings, precision: Precision = "float32"
) -> Tensor:
    """:func:`refusal_margin` of many prompts, without gradients; fp32 [prompts] on the CPU."""
    found = [torch.empty(0)]
    with torch.no_grad():
        for first in range(0, len(prompts), _AT_ONCE):
            some = prompts[first : first + _AT_ONCE]
            found.append(refusal_margin(model, some, openings, precision).cpu())
    return torch.cat(found)


def held_targets(
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    openings: Openings,
    target: float,
    precision: Precision = "float32",
) -> dict[tuple[int, ...], float]:
    """Of prompts to answer, the target that leaves alone what the model answers as it is.

    −margin, and at most ``target``, where the margin speaks for an answer; ``target`` elsewhere.
    """
    margins = margins_of(model, prompts, openings, precision).tolist()
    return {
        prompt: min(target, -margin) if margin < 0 else target
        for prompt, margin in zip(prompts, margins, strict=True)
    }


def hinge_loss(margins: Tensor, refuse: Tensor, target: float | Tensor) -> Tensor:
    """max(0, target − y · margin), y = 1 where a request is to be refused and −1 elsewhere.

    What has reached its target is left alone. Returns fp32 [prompts].
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
