"""Asks a movable model at each place, and writes what was found to a landscape file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from patchc.derivation.examples import Tokens
from patchc.derivation.margin import LONGEST, Openings, find_openings, refusal_margin
from patchc.errors import DeriveError, NumericError
from patchc.evaluation.encoded_replies import encode_replies
from patchc.evaluation.generation import Speaker
from patchc.evaluation.measure import Setup
from patchc.evaluation.model import ask
from patchc.evaluation.requests import SetName
from patchc.evaluation.verdicts import mark
from patchc.landscapes.coherence import Coherence
from patchc.landscapes.lines import JUDGED_SETS, MarginLine, Reply, ReplyLine
from patchc.landscapes.movable import MovableModel
from patchc.landscapes.place import Place

Found = TypeVar("Found")


@dataclass(frozen=True)
class Surveyor:
    """Measures places around a model.

    Attributes:
        speaker: asks the model.
        movable: moves the same model.
        setups: what it is asked, without and with the system message.
        coherence: judges replies by the same model, back at the base.
    """

    speaker: Speaker
    movable: MovableModel
    setups: Mapping[bool, Setup]
    coherence: Coherence

    def replies(self, place: Place, system: bool) -> ReplyLine:
        """Ask all requests at a place; the model is back at the base afterwards.

        Raises:
            EvaluateError: the judge fails, or a request does not fit.
            NumericError: a value is not finite at the place.
        """
        setup = self.setups[system]
        self.movable.move(place)
        spoken = {name: self._speak(setup, name) for name in JUDGED_SETS}
        chosen = self._answer(setup)
        self.movable.restore()
        found = {name: self._judge(setup, name, tokens) for name, tokens in spoken.items()}
        return ReplyLine(place, system, found | chosen)

    def margins(self, place: Place, system: bool, openings: Openings) -> MarginLine:
        """Compute the margins of refusal of harmful and harmless requests at a place.

        Raises:
            NumericError: a weight or a margin is not finite at the place.
        """
        self.movable.move(place)
        prompts = self.setups[system].prompts
        found: dict[SetName, tuple[float, ...]] = {}
        for name in JUDGED_SETS:
            measure = partial(self._measure, openings, prompts.tokens[name])
            found[name] = tuple(_in_batches(prompts.batches[name], measure))
            if not all(map(math.isfinite, found[name])):
                raise NumericError(
                    f"margins are not finite at {place.to_json()}; take a smaller radius"
                )
        return MarginLine(place, system, found)

    def _measure(
        self, openings: Openings, tokens: Sequence[Sequence[int]], numbers: Sequence[int]
    ) -> list[float]:
        asked = [tokens[number] for number in numbers]
        with torch.inference_mode():
            margins: list[float] = refusal_margin(self.speaker.model, asked, openings).tolist()
        return margins

    def _speak(self, setup: Setup, name: SetName) -> list[Tokens]:
        tokens = setup.prompts.tokens[name]

        def speak(numbers: Sequence[int]) -> list[Tokens]:
            return self.speaker.speak([tokens[number] for number in numbers])

        return _in_batches(setup.prompts.batches[name], speak)

    def _answer(self, setup: Setup) -> dict[SetName, tuple[Reply, ...]]:
        """Ask the questions, if there are any."""
        batches = setup.prompts.batches.get("utility", ())
        texts = _in_batches(batches, partial(ask, self.speaker, setup, "utility"))
        asked = zip(setup.requests.utility, texts, strict=True)
        replies = tuple(Reply(text, mark(one, text), True) for one, text in asked)
        return {"utility": replies} if replies else {}

    def _judge(self, setup: Setup, name: SetName, spoken: Sequence[Tokens]) -> tuple[Reply, ...]:
        asked = getattr(setup.requests, name)
        texts = [self.speaker.decode(tokens) for tokens in spoken]
        verdicts = setup.judge([one.prompt for one in asked], texts)
        prompts = setup.prompts.tokens[name]
        coherent = self.coherence.judge(prompts, spoken, texts)
        return tuple(Reply(*one) for one in zip(texts, verdicts, coherent, strict=True))


def _in_batches(
    batches: Sequence[Sequence[int]], measure: Callable[[Sequence[int]], Sequence[Found]]
) -> list[Found]:
    """Measure batches of numbers of requests; gives what was found in the order of the requests."""
    found: dict[int, Found] = {}
    for numbers in batches:
        found |= zip(numbers, measure(numbers), strict=True)
    return [found[number] for number in range(len(found))]


def first_openings(base: ReplyLine, setup: Setup) -> Openings:
    """Find how the base's refusals begin: by their first token, if that tells them from answers.

    Raises:
        DeriveError: there is no refusal, or none begins differently from all answers.
    """
    refusals: list[Tokens] = []
    answers: list[Tokens] = []
    for name in JUDGED_SETS:
        replies = base.replies[name]
        texts = [one.text for one in replies]
        asked = getattr(setup.requests, name)
        encoded = encode_replies(setup.prompts.tokenizer, asked, texts, LONGEST)
        for reply, tokens in zip(replies, encoded, strict=True):
            if reply.coherent:
                (refusals if reply.outcome == "refused" else answers).append(tokens)
    with suppress(DeriveError):
        return find_openings([one[:1] for one in refusals], [one[:1] for one in answers])
    try:
        return find_openings(refusals, answers)
    except DeriveError as error:
        begin = "do not begin differently from its answers" if refusals else "are needed"
        raise DeriveError(
            f"for the margins of a plane, the base's coherent refusals {begin} (here are "
            f"{len(refusals)}, and {len(answers)} answers); take a judge that tells them apart, or "
            "--plane-points 0"
        ) from error
