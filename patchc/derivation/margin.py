"""The margin of refusal: the log-odds that a reply begins as refusals do, and losses on it.

Openings, the first few tokens of refusals, define how refusals begin. The margin is positive if the
model is more likely to refuse a request than to answer it, and negative otherwise. It has a
gradient and needs no generated reply, so a model's refusals can be tuned with it directly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from patchc.derivation.aligned import likely_next
from patchc.derivation.examples import Tokens
from patchc.errors import DeriveError

LONGEST = 8
"""Most tokens of an opening."""
MOST = 8
"""Most openings; each costs a pass over every request."""
_PURE = 0.9
"""Least share of refusals among the replies that begin with an opening."""
_LARGEST = -1e-6
"""The largest log-probability of refusing, so that the odds stay finite."""


@dataclass(frozen=True)
class Openings:
    """Token sequences that refusals begin with; none begins with another.

    Attributes:
        sequences: the openings, the most frequent first.
        stems: openings without their last token, except those that begin another stem. To
            compute the probability of all openings, a prompt is continued with each stem.
        covered: the share of the known refusals that begin with one of the openings.
    """

    sequences: tuple[Tokens, ...]
    stems: tuple[Tokens, ...]
    covered: float = 1.0

    @classmethod
    def of(cls, sequences: Sequence[Tokens], covered: float = 1.0) -> Openings:
        """Make openings of token sequences; those that begin with another one are left out."""
        openings = [one for one in dict.fromkeys(sequences) if one and not _begins(one, sequences)]
        stems: list[Tokens] = []
        for stem in sorted({one[:-1] for one in openings}, key=len, reverse=True):
            if not any(longer[: len(stem)] == stem for longer in stems):
                stems.append(stem)
        return cls(tuple(openings), tuple(stems), covered)


@dataclass(frozen=True)
class Labelled:
    """A request as token ids, and whether it should be refused."""

    prompt: Tokens
    refuse: bool


def find_openings(refusals: Sequence[Tokens], answers: Sequence[Tokens]) -> Openings:
    """Find, for each refusal, the shortest start that hardly any answer has.

    At least nine in ten replies with this start are refusals; one in ten may be an answer, so that
    a few mistakes of the judge hide no opening. A refusal whose first eight tokens are also those
    of answers has no opening. The eight most frequent openings are returned.

    Raises:
        DeriveError: there is no refusal, or none begins differently from all answers.
    """
    if not refusals:
        raise DeriveError(
            f"none of the base's {len(answers)} replies is a refusal, so how its refusals begin "
            "cannot be found; name openings, or take a judge that knows them"
        )
    refused = Counter(start for refusal in refusals for start in _starts(refusal))
    answered = Counter(start for answer in answers for start in _starts(answer))
    found: Counter[Tokens] = Counter()
    for refusal in refusals:
        for start in _starts(refusal):
            if refused[start] >= _PURE * (refused[start] + answered[start]):
                found[start] += 1
                break
    if not found:
        raise DeriveError(
            f"none of {len(refusals)} refusals begins differently from the {len(answers)} answers, "
            f"within {LONGEST} tokens; name openings, or take a judge that tells them apart"
        )
    taken = found.most_common(MOST)
    covered = sum(count for _, count in taken) / len(refusals)
    return Openings.of([opening for opening, _ in taken], covered)


def refusal_margin(model: Any, prompts: Sequence[Sequence[int]], openings: Openings) -> Tensor:
    """Compute log P / (1 − P), where P is the probability that the reply begins with an opening.

    P is the sum over the openings of Π p(token | prompt, tokens before it). Each prompt is
    continued with each of the openings' stems: one row per prompt if all openings have a single
    token.

    Returns:
        fp32 [prompts].
    """
    stems = openings.stems
    rows = [prompt for prompt in prompts for _ in stems]
    following = [stem for _ in prompts for stem in stems]
    asked = _asked(openings)
    found = likely_next(model, rows, following, asked.repeat(len(prompts), 1, 1))
    found = found.view(len(prompts), *asked.shape)
    each = [_log_probability(found, openings, one) for one in openings.sequences]
    total = torch.logsumexp(torch.stack(each), dim=0).clamp_max(_LARGEST)
    return total - torch.log(-torch.expm1(total))


def hinge_loss(margins: Tensor, refuse: Tensor, target: float) -> Tensor:
    """Compute max(0, target − y · margin), y = 1 to refuse and −1 to answer; fp32 [prompts].

    A request whose margin has reached the target is left alone.
    """
    return torch.relu(target - _signed(margins, refuse))


def softplus_loss(margins: Tensor, refuse: Tensor) -> Tensor:
    """Compute log(1 + exp(−y · margin)), whose gradient never fully vanishes; fp32 [prompts]."""
    return torch.nn.functional.softplus(-_signed(margins, refuse))


def _starts(reply: Tokens) -> list[Tokens]:
    return [reply[:length] for length in range(1, min(LONGEST, len(reply)) + 1)]


def _begins(one: Tokens, others: Sequence[Tokens]) -> bool:
    return any(len(other) < len(one) and one[: len(other)] == other for other in others if other)


def _signed(margins: Tensor, refuse: Tensor) -> Tensor:
    return (refuse.to(margins.dtype) * 2 - 1) * margins


def _asked(openings: Openings) -> Tensor:
    """Lay out which tokens' log-probabilities are needed: int64 [stems, places, openings]."""
    places = max(len(stem) for stem in openings.stems) + 1
    asked = torch.zeros(len(openings.stems), places, len(openings.sequences), dtype=torch.int64)
    for number, opening in enumerate(openings.sequences):
        asked[_stem_of(openings, opening), : len(opening), number] = torch.tensor(opening)
    return asked


def _log_probability(found: Tensor, openings: Openings, opening: Tokens) -> Tensor:
    """Compute log p of one opening after each prompt, along the stem that begins with its own."""
    row, number = _stem_of(openings, opening), openings.sequences.index(opening)
    return found[:, row, : len(opening), number].sum(dim=-1)


def _stem_of(openings: Openings, opening: Tokens) -> int:
    stem = opening[:-1]
    return next(n for n, one in enumerate(openings.stems) if one[: len(stem)] == stem)
