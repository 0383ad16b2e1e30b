"""What the base's own replies to the development requests teach a fit.

They show how its refusals begin (openings), and which of its answers are right and should not
change (anchors). The requests are divided: the steps learn from some, the others validate them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from patchc.derivation.anchor import Anchor, anchors_of_batch
from patchc.derivation.examples import Example, Tokens, in_batches
from patchc.derivation.margin import Openings, find_openings
from patchc.errors import EvaluateError
from patchc.evaluation.encoded_replies import encode_replies
from patchc.evaluation.measure import Setup
from patchc.evaluation.requests import Request, SetName
from patchc.evaluation.splits import is_learned_from
from patchc.evaluation.trials import Trial
from patchc.fitting.descent import Lessons
from patchc.fitting.fit_options import FEWEST, FitOptions
from patchc.fitting.loads import LONGEST_REPLY, response_load
from patchc.fitting.measuring import measure_live
from patchc.fitting.opening import OpenBase
from patchc.fitting.rounds import Job, evaluate_jobs
from patchc.fitting.trace import BaseLine, Trace
from patchc.layered.layered_model import LayeredModel
from patchc.progress import Progress

TokensBySet = Mapping[SetName, Sequence[Tokens]]


@dataclass(frozen=True)
class Studied:
    """The open base, how it was measured, and what its replies teach.

    Attributes:
        opened: the base.
        setup: what it is asked, and how its replies are judged.
        trial: the base on the development requests.
        openings: how refusals begin.
        steps: what the steps learn from.
        validation: what decides when the steps end.
    """

    opened: OpenBase
    setup: Setup
    trial: Trial
    openings: Openings
    steps: Lessons
    validation: Lessons


def study_base(
    opened: OpenBase, setup: Setup, options: FitOptions, trace: Trace, progress: Progress
) -> Studied:
    """Measure the base, unless the trace has it, and learn from its replies.

    Raises:
        EvaluateError, DeriveError: the requests or the judge give nothing to fit on, or refusals
            begin as answers do.
    """
    measured = trace.base
    if measured is None:
        measured = BaseLine(*measure_live(opened.speaker, setup, "the base", progress))
        trace.add(measured)
    trial, replies = measured.trial, measured.replies
    _check(trial)
    requests, prompts = setup.requests, setup.prompts
    asked = {name: [tuple(one) for one in tokens] for name, tokens in prompts.tokens.items()}
    spoken = {
        name: encode_replies(prompts.tokenizer, each, replies[name], LONGEST_REPLY)
        for name, each in requests.items()
    }
    given = given_openings(setup, options)
    openings = _find_openings(given, spoken, trial, requests.utility)
    anchors = _find_anchors(opened.model, asked, spoken, trial)
    stated = [request.response or "" for request in requests.harmless]
    answers = {
        number: Example(asked["harmless"][number], reply)
        for number, reply in enumerate(
            encode_replies(prompts.tokenizer, requests.harmless, stated, LONGEST_REPLY)
        )
        if reply
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

    return Studied(opened, setup, trial, openings, lessons(True), lessons(False))


def given_openings(setup: Setup, options: FitOptions) -> Openings | None:
    """Encode the openings that the options name; None if they are to be found in replies."""
    first = setup.requests.harmful[0]
    asked = [first] * len(options.openings)
    texts = encode_replies(setup.prompts.tokenizer, asked, options.openings, LONGEST_REPLY)
    return Openings.of(texts) if texts else None


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


def _find_openings(
    given: Openings | None, spoken: TokensBySet, base: Trial, questions: Sequence[Request]
) -> Openings:
    """Take the given openings, or find those of the base's refusals."""
    refusals: list[Tokens] = []
    # A reply to a question is an answer only if it is right: a wrong one may be a refusal. A choice
    # is not what the model says of itself.
    replied = zip(
        questions, spoken.get("utility", ()), base.outcomes.get("utility", ()), strict=True
    )
    answers = [
        tokens for asked, tokens, outcome in replied if outcome == "right" and not asked.choices
    ]
    for name in ("harmful", "harmless"):
        for tokens, outcome in zip(spoken[name], base.outcomes[name], strict=True):
            (refusals if outcome == "refused" else answers).append(tokens)
    if given is None:
        return find_openings(refusals, answers)
    begun = [any(refusal[: len(one)] == one for one in given.sequences) for refusal in refusals]
    return replace(given, covered=sum(begun) / len(begun) if begun else 0.0)


def _find_anchors(
    model: LayeredModel, asked: TokensBySet, spoken: TokensBySet, base: Trial
) -> dict[tuple[SetName, int], Anchor]:
    """Find the anchors, by set and number: replies that are answered or right, and not empty."""
    places: list[tuple[SetName, int]] = []
    jobs = []
    for name in asked:
        if name != "harmful":
            right = {
                (name, number): Example(asked[name][number], spoken[name][number])
                for number, outcome in enumerate(base.outcomes[name])
                if outcome in ("answered", "right") and spoken[name][number]
            }
            places += right
            for batch in in_batches(list(right.values())):
                jobs.append(Job(partial(anchors_of_batch, model, batch), response_load(batch)))
    found = [anchor for each in evaluate_jobs(model, jobs) for anchor in each]
    return dict(zip(places, found, strict=True))
