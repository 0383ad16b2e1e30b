"""The anchor: how far a model's next-token distributions have moved from the base's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from patchc.derivation.aligned import align, next_log_probabilities
from patchc.derivation.derive_options import DeriveOptions, Precision
from patchc.derivation.examples import shuffled

Tokens = tuple[int, ...]

_NAMED = 32
"""Most likely tokens that are told apart; all others count as one."""
_LEAST = 1e-9
_TOGETHER = 16


@dataclass(frozen=True)
class Anchor:
    """A prompt, the base's reply to it, and the base's distribution at each of its places.

    Attributes:
        prompt, reply: token ids; the reply is not empty.
        named: int64 [places, n]; the base's most likely tokens at each place of the reply, n = 32
            or the size of a smaller vocabulary.
        shares: fp32 [places, n + 1]; their log-probabilities, and that of all others together.
    """

    prompt: Tokens
    reply: Tokens
    named: Tensor
    shares: Tensor


def anchors_of(
    model: Any,
    prompts: Sequence[Tokens],
    replies: Sequence[Tokens],
    precision: Precision = "float32",
) -> list[Anchor]:
    """Take the base's distributions along its own replies, a few hundred bytes a token."""
    anchors = []
    for first in range(0, len(prompts), _TOGETHER):
        some = slice(first, first + _TOGETHER)
        batch = align(prompts[some], [reply[:-1] for reply in replies[some]], model.device)
        with torch.no_grad():
            found = next_log_probabilities(model, batch, precision)
        for places, prompt, reply in zip(found, prompts[some], replies[some], strict=True):
            likely = places[: len(reply)]
            named = likely.topk(min(_NAMED, likely.shape[-1]), dim=-1).indices
            anchors.append(Anchor(prompt, reply, named, _coarse(likely, named)))
    return anchors


def divergences(
    model: Any, anchors: Sequence[Anchor], size: int, options: DeriveOptions
) -> Callable[[], Tensor] | None:
    """What gives the divergence over the next ``size`` anchors; None where there are none."""
    if not anchors:
        return None
    batches = shuffled(anchors, min(size, len(anchors)), options.seed)
    return lambda: divergence(model, next(batches), options.precision)


def divergence(model: Any, anchors: Sequence[Anchor], precision: Precision = "float32") -> Tensor:
    """KL(base ‖ model) a token, averaged over the places of all replies; a scalar in fp32.

    Of distributions over the base's 32 most likely tokens and the rest as one: a lower bound of
    the whole divergence, for which 388 bytes a place are kept instead of the whole vocabulary.
    """
    batch = align(
        [one.prompt for one in anchors], [one.reply[:-1] for one in anchors], model.device
    )
    found = next_log_probabilities(model, batch, precision)
    total, places = found.new_zeros(()), 0
    for row, one in enumerate(anchors):
        count = len(one.reply)
        theirs = _coarse(found[row, :count], one.named)
        total = total + (one.shares.exp() * (one.shares - theirs)).sum()
        places += count
    return total / places


def _coarse(log_probabilities: Tensor, named: Tensor) -> Tensor:
    picked = log_probabilities.gather(-1, named)
    rest = (1 - picked.exp().sum(-1, keepdim=True)).clamp_min(_LEAST).log()
    return torch.cat([picked, rest], dim=-1)
