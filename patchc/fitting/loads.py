"""How much text passes the model at once in a fit, which decides its memory beside the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchc.derivation.examples import BATCH, Example, Tokens
from patchc.derivation.load import Load, of_following
from patchc.derivation.margin import LONGEST, MOST, Openings
from patchc.evaluation.measure import Setup
from patchc.evaluation.perplexity import TOGETHER, WINDOW
from patchc.evaluation.prompts import encode_answers
from patchc.fitting.fit_options import FitOptions

ANCHORS = 8
"""Anchors in a step."""
LONGEST_REPLY = 32
"""Most tokens of a reply that are compared and kept in anchors."""


def margin_load(prompts: Sequence[Tokens], openings: Openings) -> Load:
    """The run of the model that computes the margins of some prompts."""
    return of_following(prompts, openings.stems, len(prompts) * len(openings.stems))


def response_load(examples: Sequence[Example]) -> Load:
    """The run of the model that computes log-probabilities along some responses."""
    before_last = [one.response[:-1] for one in examples]
    return of_following([one.prompt for one in examples], before_last, len(examples))


@dataclass(frozen=True)
class FitLoads:
    """The largest runs of a fit, as far as they are known before the base is asked.

    Attributes:
        step: of each loss of a step.
        evaluated: without gradients.
        evaluated_tokens: of all that is evaluated together, at most.
        whole: without gradients, with the logits of all places at once.
        spoken: requests with their replies.
    """

    step: tuple[Load, ...]
    evaluated: tuple[Load, ...]
    evaluated_tokens: int
    whole: tuple[Load, ...]
    spoken: Load

    @classmethod
    def of(cls, setup: Setup, options: FitOptions, openings: Openings | None) -> FitLoads:
        """Find them; where the base's replies are to give the openings, the most is assumed."""
        tokens, asking = setup.prompts.tokens, setup.options
        longest = max(len(prompt) for each in tokens.values() for prompt in each)
        stems, width = MOST, LONGEST - 1
        if openings is not None:
            stems, width = len(openings.stems), max(map(len, openings.stems))

        def margins(prompts: int) -> Load:
            rows = prompts * stems
            return Load(rows, longest + width, rows * (width + 1))

        def along(rows: int, tokens: int = LONGEST_REPLY) -> Load:
            return Load(rows, longest + tokens - 1, rows * tokens)

        # A reply's text may be encoded in other tokens, some more, than were spoken.
        reply = min(LONGEST_REPLY, 2 * asking.max_new_tokens)
        whole = [along(BATCH, reply)]
        if setup.reference is not None:
            whole.append(Load(1, WINDOW, WINDOW))
        answers = encode_answers(setup.prompts, setup.requests.harmless)
        if answers:
            columns = max(len(one.prompt) + len(one.response) for one in answers)
            whole.append(Load(TOGETHER, columns, TOGETHER * columns))
        step = [margins(options.batch_size), along(ANCHORS, reply)]
        if answers:
            step.append(along(options.batch_size // 2))
        evaluated = [margins(BATCH), along(BATCH, LONGEST_REPLY if answers else reply)]
        requests = sum(map(len, tokens.values()))
        rows = min(asking.batch_size, max(map(len, tokens.values())))
        return cls(
            step=tuple(step),
            evaluated=tuple(evaluated),
            evaluated_tokens=requests * sum(load.tokens // load.rows for load in evaluated) * stems,
            whole=tuple(whole),
            spoken=Load(rows, longest + asking.max_new_tokens, rows),
        )
