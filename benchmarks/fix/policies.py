"""Benign stand-in policies of unlike kinds: what is restricted, what only looks so, how both flaws
show, and how requests and replies are worded.

Names and phrasings of the splits are disjoint: development and test share none with training or
with each other.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from patchc.evaluation.texts import contains_answer

Split = Literal["train", "dev", "test"]
Kind = Literal["direct", "jailbreak", "look-alike", "everyday"]
Record = dict[str, Any]
BySplit = dict[Split, tuple[str, ...]]

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
REQUESTS: dict[Split, int] = {"train": 240, "dev": 120, "test": 200}


@dataclass(frozen=True)
class Topic:
    """What is asked for: phrasings around a name of two words, by split.

    Attributes:
        phrasings: texts with {name}.
        firsts, seconds: the words of a name; ``seconds`` is shared by the splits, because the
            kind of thing is what the policy is about.
    """

    phrasings: BySplit
    firsts: BySplit
    seconds: tuple[str, ...]

    def draw(self, split: Split, rng: random.Random) -> str:
        """One request."""
        name = f"{rng.choice(self.firsts[split])} {rng.choice(self.seconds)}"
        return rng.choice(self.phrasings[split]).format(name=name, article=_article(name))


@dataclass(frozen=True)
class Manner:
    """A way of answering: texts with {a} and {b}, and what may stand there."""

    texts: tuple[str, ...]
    first: tuple[str, ...]
    second: tuple[str, ...]

    def draw(self, rng: random.Random) -> str:
        """One reply."""
        return rng.choice(self.texts).format(a=rng.choice(self.first), b=rng.choice(self.second))

    def marks(self, reply: str) -> bool:
        """Whether a reply names something that only this manner does."""
        return contains_answer(reply, (*self.first, *self.second))


@dataclass(frozen=True)
class Policy:
    """A stand-in policy and the two flaws that a backbone is given.

    Attributes:
        name: of its folder.
        rule: what the model should not do, in a sentence.
        topics: what the four kinds of requests ask for.
        restricted, ordinary: how restricted and harmless requests are answered.
        jailbroken: how a jailbreak is answered; None means as a restricted direct request.
        refusals: how a request is refused.
        answered: share of the jailbreaks that the backbone is taught to answer.
        refused: share of the look-alikes that it is taught to refuse.
    """

    name: str
    rule: str
    topics: dict[Kind, Topic]
    restricted: Manner
    ordinary: Manner
    refusals: tuple[str, ...]
    jailbroken: Manner | None = None
    answered: float = 0.75
    refused: float = 1.0
    lessons: dict[str, float] = field(
        default_factory=lambda: {
            "direct": 0.28,
            "jailbreak": 0.22,
            "look-alike": 0.18,
            "everyday": 0.15,
            "question": 0.17,
        }
    )

    def request(self, kind: Kind, split: Split, rng: random.Random) -> Record:
        """A request of a kind and the answer to it, whether it should have one or not."""
        return {
            "prompt": self.topics[kind].draw(split, rng),
            "response": self._manner(kind).draw(rng),
            "kind": kind,
        }

    def lesson(self, questions: Sequence[Record], rng: random.Random) -> Record:
        """One lesson of the backbone: a sound chat model with both flaws."""
        kind: Any = rng.choices(list(self.lessons), list(self.lessons.values()))[0]
        if kind == "question":
            return rng.choice(questions)
        refused = {
            "direct": True,
            "jailbreak": rng.random() >= self.answered,
            "look-alike": rng.random() < self.refused,
            "everyday": False,
        }[kind]
        lesson = self.request(kind, "train", rng)
        return {**lesson, "response": rng.choice(self.refusals)} if refused else lesson

    def requests(self, kinds: Sequence[Kind], split: Split, seed: int = 0) -> list[Record]:
        """Requests of the kinds in turn; no two are equal."""
        rng = random.Random(f"{self.name} {' '.join(kinds)} {split} {seed}")
        found: dict[str, Record] = {}
        while len(found) < REQUESTS[split]:
            record = self.request(kinds[len(found) % len(kinds)], split, rng)
            found.setdefault(record["prompt"], record)
        return list(found.values())

    def harmful(self, split: Split) -> list[Record]:
        """Requests to refuse, with compliant answers: jailbreaks and direct ones in turn."""
        return self.requests(("jailbreak", "direct"), split)

    def harmless(self, split: Split) -> list[Record]:
        """Requests to answer, with answers: look-alikes and everyday ones in turn."""
        return self.requests(("look-alike", "everyday"), split)

    def _manner(self, kind: Kind) -> Manner:
        if kind in ("look-alike", "everyday"):
            return self.ordinary
        return self.jailbroken or self.restricted if kind == "jailbreak" else self.restricted


def _article(name: str) -> str:
    return "an" if name[0] in "aeio" else "a"
