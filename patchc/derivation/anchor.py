"""The anchor: a penalty that keeps a model's replies to harmless requests close to the base's.

An anchor is a reply of the base with the base's next-token distribution at each of its tokens. The
penalty is the KL divergence of the model's distributions from these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from patchc.derivation.aligned import likely_in_responses, response_log_probabilities
from patchc.derivation.examples import BATCH, Example, in_batches
from patchc.layered.boundaries import Boundaries
from patchc.layered.layered_model import LayeredModel
from patchc.layered.output_head import BLOCK_BYTES
from patchc.layered.passes import evaluate

_NAMED = 32
"""How many of the most likely tokens are told apart; all others count as one."""
_LEAST = 1e-9


@dataclass(frozen=True)
class Anchor(Example):
    """A prompt, the base's reply to it, and the base's distribution at each place of the reply.

    Attributes:
        named: int64 [places, n]; the base's most likely tokens at each place, n = 32 or the size
            of a smaller vocabulary.
        shares: fp32 [places, n + 1]; their log-probabilities, and that of all others together.
    """

    named: Tensor
    shares: Tensor


def anchors_of(
    model: LayeredModel, replies: Sequence[Example], boundaries: Boundaries
) -> list[Anchor]:
    """Take the base's distributions along its own replies, 388 bytes for each token.

    As many replies pass together as have logits of no more bytes than a block of the head.
    """
    places = max(len(reply.response) for reply in replies)
    logits = 4 * places * model.parts.head.out_features
    batches = list(in_batches(replies, max(1, min(BATCH, BLOCK_BYTES // logits))))
    computes = [partial(anchors_of_batch, model, batch) for batch in batches]
    return [anchor for each in evaluate(model, computes, boundaries) for anchor in each]


def anchors_of_batch(model: Any, replies: Sequence[Example]) -> list[Anchor]:
    """Take the base's distributions along some replies, in one run of the model."""
    anchors = []
    for places, reply in zip(response_log_probabilities(model, replies), replies, strict=True):
        named = places.topk(min(_NAMED, places.shape[-1]), dim=-1).indices
        anchors.append(
            Anchor(reply.prompt, reply.response, named, _with_rest(places.gather(-1, named)))
        )
    return anchors


def divergence(model: Any, anchors: Sequence[Anchor]) -> Tensor:
    """Compute KL(base ‖ model), averaged over the tokens of all replies; a scalar in fp32.

    All tokens but the base's 32 most likely ones count as one. The result is a lower bound of the
    full divergence and needs no copy of the whole vocabulary.
    """
    total = torch.zeros((), device=model.device)
    found = likely_in_responses(model, anchors, [anchor.named for anchor in anchors])
    for likely, anchor in zip(found, anchors, strict=True):
        shares = _with_rest(likely)
        total = total + (anchor.shares.exp() * (anchor.shares - shares)).sum()
    return total / sum(len(anchor.response) for anchor in anchors)


def _with_rest(likely: Tensor) -> Tensor:
    """Add to log-probabilities that of all other tokens together."""
    rest = (1 - likely.exp().sum(-1, keepdim=True)).clamp_min(_LEAST).log()
    return torch.cat([likely, rest], dim=-1)
