"""General questions about facts of one split only, with every accepted answer."""

from __future__ import annotations

from typing import Any

from words import QUESTIONS, Split

PLACES: tuple[Split, ...] = ("train", "test", "dev", "test", "train", "dev", "test")
"""Splits of successive facts."""

_NUMBERS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
]
_SUMS = " ".join(f"{a}_and_{b}={a + b}|{_NUMBERS[a + b]}" for a in range(1, 8) for b in range(1, 8))

MORE: tuple[tuple[dict[Split, tuple[str, ...]], str, str], ...] = (
    (
        {
            "train": ("What is the plural of {}?",),
            "dev": ("Give the plural of the word {}.",),
            "test": ("How do you write the plural of {}?", "One {}, many what?"),
        },
        "The plural of {} is {}.",
        """
        cat=cats child=children mouse=mice house=houses tree=trees man=men woman=women foot=feet
        tooth=teeth box=boxes city=cities leaf=leaves knife=knives bird=birds wolf=wolves
        baby=babies
        apple=apples bus=buses dish=dishes story=stories
        """,
    ),
    (
        {
            "train": ("What do you call a young {}?",),
            "dev": ("Name the young of a {}.",),
            "test": ("Which word is used for a baby {}?", "A young {} is called a what?"),
        },
        "A young {} is a {}.",
        """
        dog=puppy|pup cat=kitten cow=calf horse=foal sheep=lamb pig=piglet goat=kid lion=cub
        bear=cub
        duck=duckling hen=chick frog=tadpole deer=fawn swan=cygnet
        """,
    ),
    (
        {
            "train": ("What is the sum of {}?",),
            "dev": ("Add {}.",),
            "test": ("How much do {} make?", "Work out the sum of {}."),
        },
        "The sum of {} is {}.",
        _SUMS,
    ),
)
_AGAIN: dict[str, str] = {
    "Which city is the capital of {}?": "What do you call the capital city of {}?",
    "Tell me the usual colour of {}.": "Say which colour {} usually has.",
    "Which word means the opposite of {}?": "Find the opposite of the word {}.",
    "Calculate {}.": "Work out {}.",
    "Say what comes next after {}.": "What is the next one after {}?",
    "Which continent does {} belong to?": "In which part of the world is {}?",
}
"""A second phrasing for the test split."""


def questions(split: Split) -> list[dict[str, Any]]:
    """The questions of a split; those of the test split in two phrasings."""
    kinds = [
        ({s: (p, _AGAIN[p]) if s == "test" else (p,) for s, p in phrasings.items()}, reply, facts)
        for phrasings, reply, facts in QUESTIONS
    ]
    return [
        {
            "prompt": phrase.format(subject),
            "answers": answers,
            "response": (text := reply.format(subject, answers[0]))[0].upper() + text[1:],
        }
        for phrasings, reply, facts in (*kinds, *MORE)
        for number, (subject, answers) in enumerate(_facts(facts))
        if PLACES[number % len(PLACES)] == split
        for phrase in phrasings[split]
    ]


def _facts(text: str) -> list[tuple[str, list[str]]]:
    pairs = (fact.split("=") for fact in text.split())
    return [(subject.replace("_", " "), answers.split("|")) for subject, answers in pairs]
