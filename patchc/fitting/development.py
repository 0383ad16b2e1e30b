"""What the base's own replies to the development requests teach a fit.

They show how its refusals begin (openings), and which of its answers are right and should not
change (anchors). The requests are divided: the steps learn from some, the others validate them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from patchc.checkpoint import Checkpoint
from patchc.derivation.anchor import Anchor, anchors_of_batch
from patchc.derivation.base_model import name_tensors
from patchc.derivation.conversations import Conversation
from patchc.derivation.examples import Example, Tokens, encode_opening, in_batches
from patchc.derivation.margin import Openings, find_openings
from patchc.errors import DeriveError, EvaluateError
from patchc.evaluation.generation import Speaker
from patchc.evaluation.measure import Setup
from patchc.evaluation.requests import Request, SetName
from patchc.evaluation.splits import is_learned_from
from patchc.evaluation.trials import Trial
from patchc.fitting.descent import Lessons
from patchc.fitting.fit_options import FEWEST, FitOptions
from patchc.fitting.measuring import measure_live
from patchc.fitting.trace import BaseLine, Trace
from patchc.progress import Progress

TokensBySet = Mapping[SetName, Sequence[Tokens]]

_LONGEST_REPLY = 32
"""Most tokens of a reply that are compared and kept in anchors."""


@dataclass(frozen=True)
class Studied:
    """The loaded base, how it was measured, and what its replies teach.

    Attributes:
        speaker: asks the loaded model.
        setup: what it is asked, and how its replies are judged.
        tensors: the model's parameters by the names that the base stores.
        trial: the base on the development requests.
        openings: how refusals begin.
        steps: what the steps learn from.
        validation: what decides when the steps end.
    """

    speaker: Speaker
    setup: Setup
    tensors: Mapping[str, Tensor]
    trial: Trial
    openings: Openings
    steps: Lessons
    validation: Lessons


def study_base(
    base: Checkpoint,
    speaker: Speaker,
    setup: Setup,
    options: FitOptions,
    trace: Trace,
    progress: Progress,
) -> Studied:
    """Measure the base, unless the trace has it, and learn from its replies.

    Raises:
        EvaluateError, DeriveError: the requests or the judge give nothing to fit on, or refusals
            begin as answers do.
        UnsupportedInputError: the loaded model's parameters are not those that the base stores.
    """
    measured = trace.base
    if measured is None:
        measured = BaseLine(*measure_live(speaker, setup, "the base", progress))
        trace.add(measured)
    trial, replies = measured.trial, measured.replies
    _check(trial)
    requests, prompts = setup.requests, setup.prompts
    encode = partial(_encode_reply, prompts.tokenizer)
    asked = {name: [tuple(one) for one in tokens] for name, tokens in prompts.tokens.items()}
    spoken = {
        name: [encode(one, text) for one, text in zip(each, replies[name], strict=True)]
        for name, each in requests.items()
    }
    given = [encode(requests.harmful[0], text) for text in options.openings]
    openings = _find_openings(given, spoken, trial)
    anchors = _find_anchors(speaker.model, asked, spoken, trial)
    answers = {
        number: Example(asked["harmless"][number], reply)
        for number, request in enumerate(requests.harmless)
        if request.response and (reply := encode(request, request.response))
    }
    learned = {
        (name, number): flag
        for name, each in requests.items()
        for number, flag in enumerate(is_learned_from(each, name, options.validation, options.seed))
    }

    def lessons(of_steps: bool) -> Lessons:
        chosen = [place for place, flag in learned.items() if flag == of_steps]
        harmless = [place for place in chosen if place[0] != "harmful"]
        return Lessons(
            tuple(asked[name][number] for name, number in chosen if name == "harmful"),
            tuple(asked[name][number] for name, number in harmless),
            tuple(anchors[place] for place in harmless if place in anchors),
            tuple(answers[n] for name, n in harmless if name == "harmless" and n in answers),
        )

    tensors = name_tensors(speaker.model, base)
    return Studied(speaker, setup, tensors, trial, openings, lessons(True), lessons(False))


def _check(base: Trial) -> None:
    """Refuse requests that have nothing to teach, before anything is fitted.

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


def _encode_reply(tokenizer: Any, request: Request, text: str) -> Tokens:
    """Encode the first tokens of a reply, as the model would begin its turn with them."""
    text = text.strip()
    if not text:
        return ()
    reply = {"role": "assistant", "content": text}
    try:
        said = Conversation(request.source, (*request.messages, reply))
        return encode_opening(tokenizer, said)[:_LONGEST_REPLY]
    except DeriveError:
        # The template changes what was said; the best tokens left are those of the text alone.
        return tuple(tokenizer.encode(text, add_special_tokens=False))[:_LONGEST_REPLY]


def _find_openings(given: Sequence[Tokens], spoken: TokensBySet, base: Trial) -> Openings:
    """Take the given openings, or find those of the base's refusals."""
    refusals: list[Tokens] = []
    # A reply to a question is an answer only if it is right: a wrong one may be a refusal.
    right = zip(spoken.get("utility", ()), base.outcomes.get("utility", ()), strict=True)
    answers = [tokens for tokens, outcome in right if outcome == "right"]
    for name in ("harmful", "harmless"):
        for tokens, outcome in zip(spoken[name], base.outcomes[name], strict=True):
            (refusals if outcome == "refused" else answers).append(tokens)
    if not given:
        return find_openings(refusals, answers)
    openings = Openings.of(given)
    begun = [any(refusal[: len(one)] == one for one in openings.sequences) for refusal in refusals]
    return replace(openings, covered=sum(begun) / len(begun) if begun else 0.0)


def _find_anchors(
    model: Any, asked: TokensBySet, spoken: TokensBySet, base: Trial
) -> dict[tuple[SetName, int], Anchor]:
    """Find the anchors, by set and number: replies that are answered or right, and not empty."""
    anchors: dict[tuple[SetName, int], Anchor] = {}
    for name in asked:
        if name != "harmful":
            right = {
                (name, number): Example(asked[name][number], spoken[name][number])
                for number, outcome in enumerate(base.outcomes[name])
                if outcome in ("answered", "right") and spoken[name][number]
            }
            for batch in in_batches(list(right.items())):
                with torch.no_grad():
                    found = anchors_of_batch(model, [example for _, example in batch])
                anchors |= zip((place for place, _ in batch), found, strict=True)
    return anchors
