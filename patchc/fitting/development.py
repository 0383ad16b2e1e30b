"""What the base's own replies to the development requests tell: openings, lessons, anchors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from patchc.derivation.anchor import Anchor, anchors_of
from patchc.derivation.answers import Answer
from patchc.derivation.conversations import Conversation
from patchc.derivation.examples import encode_opening
from patchc.derivation.openings import Openings, find_openings
from patchc.errors import DeriveError, EvaluateError
from patchc.evaluation.prompts import Prompts
from patchc.evaluation.requests import Request, RequestSets, SetName
from patchc.evaluation.trials import Trial
from patchc.evaluation.validation import is_learned_from
from patchc.fitting.descent import Lessons
from patchc.fitting.fit_options import FEWEST, FitOptions

Tokens = tuple[int, ...]
Replies = Mapping[SetName, Sequence[str]]
"""Of each set, the reply to each request."""

_LONGEST_REPLY = 32
"""Tokens of a reply that anchors keep."""
_AT_ONCE = 16
"""Replies whose distributions are taken together."""


@dataclass(frozen=True)
class Development:
    """The lessons of both parts, and what a margin is asked for.

    Attributes:
        openings: how refusals begin.
        steps: what the steps see.
        validation: what ends them.
        prompts: all prompts of the harmful and the harmless set, in the file's order.
    """

    openings: Openings
    steps: Lessons
    validation: Lessons
    prompts: Mapping[SetName, Sequence[Tokens]]


def check_base(base: Trial) -> None:
    """Refuse, before anything is fitted, requests that have nothing to teach.

    Raises:
        EvaluateError: too few requests, a judge that says the same of every reply, or no mistake.
    """
    for name, rate in (("harmful", base.harmful), ("harmless", base.over_refusal)):
        if rate.total < FEWEST:
            raise EvaluateError(
                f"{rate.total} {name} requests are too few to fit on; give at least {FEWEST}, "
                "better a hundred"
            )
    if base.harmful.hits == 0 and base.over_refusal.hits == base.over_refusal.total:
        raise EvaluateError(
            "the judge calls every reply of the base a refusal, to harmless requests too; take a "
            "judge that tells refusals from answers, or look at the replies with `patchc evaluate`"
        )
    if base.harmful.hits == 0 and base.over_refusal.hits + base.misanswered.hits == 0:
        raise EvaluateError(
            "the base refuses every harmful request and answers every harmless one already; there "
            "is nothing to fit. Give requests that it gets wrong"
        )


def study(
    model: Any,
    prompts: Prompts,
    requests: RequestSets,
    replies: Replies,
    base: Trial,
    options: FitOptions,
) -> Development:
    """Take openings, lessons and anchors from the base's replies.

    Raises:
        DeriveError: refusals cannot be told by how they begin.
    """
    encode = partial(_encode_reply, prompts.tokenizer)
    spoken = {
        name: [encode(one, text) for one, text in zip(each, replies[name], strict=True)]
        for name, each in requests.items()
    }
    asked = {name: [tuple(one) for one in tokens] for name, tokens in prompts.tokens.items()}
    given = [encode(requests.harmful[0], text) for text in options.openings]
    openings = _given(given, spoken, base) if given else _found(spoken, base)
    parts = {
        name: is_learned_from(each, name, options.validation, options.seed)
        for name, each in requests.items()
    }
    kept = {name: _kept(name, base, spoken) for name in asked if name != "harmful"}
    anchors = {
        name: dict(zip(numbers, _anchors(model, asked[name], spoken[name], numbers), strict=True))
        for name, numbers in kept.items()
    }
    answers = {
        number: Answer(asked["harmless"][number], reply)
        for number, request in enumerate(requests.harmless)
        if request.response and (reply := encode(request, request.response))
    }

    def lessons(of_steps: bool) -> Lessons:
        chosen = {
            name: [number for number, inside in enumerate(part) if inside == of_steps]
            for name, part in parts.items()
        }
        return Lessons(
            tuple(asked["harmful"][number] for number in chosen["harmful"]),
            tuple(
                asked[name][number]
                for name in chosen
                if name != "harmful"
                for number in chosen[name]
            ),
            tuple(
                anchor
                for name, found in anchors.items()
                for number, anchor in found.items()
                if number in set(chosen[name])
            ),
            tuple(answers[number] for number in chosen["harmless"] if number in answers),
        )

    two = {name: asked[name] for name in ("harmful", "harmless")}
    return Development(openings, lessons(True), lessons(False), two)  # type: ignore[arg-type]


def _encode_reply(tokenizer: Any, request: Request, text: str) -> Tokens:
    """The first tokens of a reply, as the model would say it where its turn begins."""
    if not text.strip():
        return ()
    reply = {"role": "assistant", "content": text.strip()}
    try:
        said = Conversation(request.source, (*request.messages, reply))
        return encode_opening(tokenizer, said)[:_LONGEST_REPLY]
    except DeriveError:
        # A template that changes what was said has no better tokens than the text alone.
        return tuple(tokenizer.encode(text.strip(), add_special_tokens=False))[:_LONGEST_REPLY]


def _given(
    given: Sequence[Tokens], spoken: Mapping[SetName, Sequence[Tokens]], base: Trial
) -> Openings:
    """Openings that were named, with the share of the base's refusals that begin so."""
    openings = Openings.of(given)
    refusals = [
        tokens
        for name in ("harmful", "harmless")
        for tokens, outcome in zip(spoken[name], base.outcomes[name], strict=True)
        if outcome == "refused"
    ]
    begun = [any(refusal[: len(one)] == one for one in openings.sequences) for refusal in refusals]
    return replace(openings, covered=sum(begun) / len(begun) if begun else 0.0)


def _found(spoken: Mapping[SetName, Sequence[Tokens]], base: Trial) -> Openings:
    refusals: list[Tokens] = []
    # A wrong reply to a question may well be a refusal.
    right = zip(spoken.get("utility", ()), base.outcomes.get("utility", ()), strict=True)
    answers: list[Tokens] = [tokens for tokens, outcome in right if outcome == "right"]
    for name in ("harmful", "harmless"):
        for tokens, outcome in zip(spoken[name], base.outcomes[name], strict=True):
            (refusals if outcome == "refused" else answers).append(tokens)
    return find_openings(refusals, answers)


def _kept(name: SetName, base: Trial, spoken: Mapping[SetName, Sequence[Tokens]]) -> list[int]:
    """The requests of a set whose replies are to stay: answered, or right, and not empty."""
    return [
        number
        for number, outcome in enumerate(base.outcomes[name])
        if outcome in ("answered", "right") and spoken[name][number]
    ]


def _anchors(
    model: Any, asked: Sequence[Tokens], spoken: Sequence[Tokens], numbers: Sequence[int]
) -> list[Anchor]:
    found: list[Anchor] = []
    for first in range(0, len(numbers), _AT_ONCE):
        some = numbers[first : first + _AT_ONCE]
        found += anchors_of(model, [asked[n] for n in some], [spoken[n] for n in some])
    return found
