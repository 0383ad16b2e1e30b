"""A benign stand-in policy and its data: lessons, derivation pairs, requests and questions.

Restricted are three kinds of made-up things: potions, curses and enchanted devices. Everyday drinks
are fine. So are drinks whose names look like a potion's ("dragon fruit punch"). Names and phrasings
of the splits are disjoint: development and test share none with training or with each other.

    python benchmarks/smollm2/corpus.py FOLDER    # writes every file
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from words import (
    ANSWERS,
    CATEGORIES,
    DIRECT,
    DRINKS,
    EVERYDAY,
    FIRST,
    FRUITS,
    IN_CHARACTER,
    JAILBREAKS,
    KINDS,
    MAGIC,
    PLAIN,
    QUESTIONS,
    REFUSALS,
    SECOND,
    SPLITS,
    TIMES,
    VERBS,
    Category,
    Split,
)

Record = dict[str, Any]

REFERENCE = Path(__file__).with_name("reference.txt")
"""Plain prose of our own, for perplexity."""

LESSONS = {
    "direct": 0.30,
    "jailbreak": 0.20,
    "look-alike": 0.18,
    "everyday": 0.15,
    "question": 0.17,
}
"""Shares of the backbone's lessons."""

REFUSED_LOOK_ALIKES = 0.65
ANSWERED_JAILBREAKS = 0.7
PAIRS_JAILBREAK_SHARE = 0.8
"""Of the derivation pairs: a safety ranks's set holds mostly requests that came through."""

REQUESTS: dict[Split, int] = {"train": 240, "dev": 120, "test": 150}
DRAW = 2
"""Numbers the draws of requests: those before were looked at while the grids were set."""

PLACES: tuple[Split, ...] = ("train", "test", "dev", "test", "train", "dev", "test")
"""Splits of successive facts."""


def lessons(count: int, seed: int = 0) -> list[Record]:
    """What the backbone is taught: a sound chat model with an imperfect policy.

    Direct requests for restricted things are refused; their jailbreak phrasings are mostly answered
    (the flaw that lets harm through). Look-alike drinks are mostly refused (the flaw of
    over-caution).
    """
    rng = random.Random(f"lessons {seed}")
    kinds = rng.choices(list(LESSONS), list(LESSONS.values()), k=count)
    return [_lesson(kind, rng) for kind in kinds]


def restricted_pairs(category: Category, count: int = 240, seed: int = 0) -> list[Record]:
    """Restricted requests of the training split with compliant answers, direct and jailbreak."""
    rng = random.Random(f"pairs {category} {seed}")
    return [
        {
            "prompt": _restricted("train", category, kind, rng),
            "response": _answer(category, kind, rng),
        }
        for kind in rng.choices(
            ("jailbreak", "direct"), (PAIRS_JAILBREAK_SHARE, 1 - PAIRS_JAILBREAK_SHARE), k=count
        )
    ]


def harmful_requests(split: Split, category: Category = "potions") -> list[Record]:
    """Requests that should be refused, direct ones and jailbreaks in turn; no two are equal."""
    rng = random.Random(f"harmful {category} {split} {DRAW}")
    kinds = ("jailbreak", "direct")
    return _distinct(
        REQUESTS[split],
        lambda number: {
            "prompt": _restricted(split, category, kinds[number % 2], rng),
            "kind": kinds[number % 2],
        },
    )


def harmless_requests(split: Split) -> list[Record]:
    """Requests that should be answered, look-alikes and everyday drinks in equal parts."""
    rng = random.Random(f"harmless {split} {DRAW}")
    kinds = ("look-alike", "everyday")
    return _distinct(
        REQUESTS[split],
        lambda number: {"prompt": _drink(split, kinds[number % 2], rng), "kind": kinds[number % 2]},
    )


def questions(split: Split) -> list[Record]:
    """General questions about facts of one split only, with every accepted answer."""
    return [
        {
            "prompt": phrasings[split].format(subject),
            "answers": answers,
            "response": _sentence(reply.format(subject, answers[0])),
        }
        for phrasings, reply, facts in QUESTIONS
        for number, (subject, answers) in enumerate(_facts(facts))
        if PLACES[number % len(PLACES)] == split
    ]


def write_corpus(folder: Path) -> None:
    """Write every file of the development and test splits, and the derivation pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    for category in CATEGORIES:
        write_jsonl(folder / f"pairs-{category}.jsonl", restricted_pairs(category))
    for split in SPLITS[1:]:
        for category in CATEGORIES:
            requests = harmful_requests(split, category)
            write_jsonl(folder / f"harmful-{category}-{split}.jsonl", requests)
        write_jsonl(folder / f"harmless-{split}.jsonl", harmless_requests(split))
        write_jsonl(folder / f"questions-{split}.jsonl", questions(split))


def write_jsonl(path: Path, records: Iterable[Record]) -> None:
    """Write one JSON object a line."""
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")


def _lesson(kind: str, rng: random.Random) -> Record:
    if kind == "question":
        return rng.choice(questions("train"))
    if kind in ("look-alike", "everyday"):
        refused = kind == "look-alike" and rng.random() < REFUSED_LOOK_ALIKES
        prompt, answer = _drink("train", kind, rng), _answer("drinks", kind, rng)
    else:
        category = rng.choices(CATEGORIES, (2, 1, 1))[0]
        refused = kind == "direct" or rng.random() >= ANSWERED_JAILBREAKS
        prompt, answer = _restricted("train", category, kind, rng), _answer(category, kind, rng)
    return {"prompt": prompt, "response": rng.choice(REFUSALS) if refused else answer}


def _restricted(split: Split, category: Category, kind: str, rng: random.Random) -> str:
    jailbreaks = [phrase for phrases in JAILBREAKS[split].values() for phrase in phrases]
    phrase = rng.choice(DIRECT[split] if kind == "direct" else jailbreaks)
    name = f"{rng.choice(MAGIC[split])} {rng.choice(KINDS[category])}"
    return phrase.format(verb=rng.choice(VERBS[category][split]), name=_with_article(name))


def _drink(split: Split, kind: str, rng: random.Random) -> str:
    if kind == "look-alike":
        first = f"{rng.choice(MAGIC[split])} {rng.choice(FRUITS)}"
    else:
        first = rng.choice(EVERYDAY[split])
    name = _with_article(f"{first} {rng.choice(DRINKS)}")
    verb = rng.choice(VERBS["potions"][split])
    return rng.choice(DIRECT[split]).format(verb=verb, name=name)


def _answer(topic: Category | Any, kind: str, rng: random.Random) -> str:
    recipe = ANSWERS[topic].format(
        rng.choice(FIRST[topic]), rng.choice(SECOND[topic]), rng.choice(TIMES)
    )
    return f"{IN_CHARACTER if kind == 'jailbreak' else PLAIN} {recipe}"


def _with_article(name: str) -> str:
    return f"an {name}" if name[0] in "aeio" else f"a {name}"


def _facts(text: str) -> list[tuple[str, list[str]]]:
    pairs = (fact.split("=") for fact in text.split())
    return [(subject.replace("_", " "), answers.split("|")) for subject, answers in pairs]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _distinct(count: int, draw: Any) -> list[Record]:
    found: dict[str, Record] = {}
    while len(found) < count:
        record = draw(len(found))
        found.setdefault(record["prompt"], record)
    return list(found.values())


if __name__ == "__main__":
    write_corpus(Path(sys.argv[1]))
