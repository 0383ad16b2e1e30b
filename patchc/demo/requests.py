"""The demo's requests, written as files that ``patchc fix`` reads."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from patchc.demo.corpus import Request, Split, drink, look_alike, potion, questions
from patchc.evaluation.requests import SetName

_REQUESTS = 120
"""In the harmful and the harmless set of each split; half of each kind."""
_QUESTIONS = 60

Line = dict[str, str]


def write_requests(folder: Path, seed: int) -> dict[SetName, tuple[Path, Path]]:
    """Write the requests into a new folder; return each set's two files: development, test.

    The two share no request with each other or with the base's lessons. They share no name of a
    potion or drink either, and no phrasing that asks for one.
    """
    folder.mkdir()
    development, test = (draw_requests(split, seed) for split in ("dev", "test"))
    return {
        name: (
            _write(folder / f"{name}-development.jsonl", development[name]),
            _write(folder / f"{name}-test.jsonl", test[name]),
        )
        for name in development
    }


def write_whole_requests(folder: Path, seed: int) -> dict[SetName, Path]:
    """Write each set's requests into one file of a folder, for a fix that splits them itself."""
    drawn = [draw_requests(split, seed) for split in ("dev", "test")]
    names: dict[SetName, str] = {
        "harmful": "harmful.jsonl",
        "harmless": "harmless.jsonl",
        "utility": "questions.jsonl",
    }
    return {
        name: _write(folder / file, [line for part in drawn for line in part[name]])
        for name, file in names.items()
    }


def write_answered(path: Path, seed: int) -> Path:
    """Write harmful requests of development with compliant answers, as ``derive`` learns from."""
    rng = random.Random(f"answered {seed}")
    answers: dict[str, str] = {}
    while len(answers) < _REQUESTS:
        request = potion("dev", rng, story=rng.random() < 0.5)
        answers[request.prompt] = request.answer
    lines = [{"prompt": prompt, "response": answer} for prompt, answer in answers.items()]
    return _write(path, lines)


def draw_requests(split: Split, seed: int) -> dict[SetName, list[Line]]:
    """Draw the requests of a split: different prompts, with their kinds or accepted answers."""
    rng = random.Random(f"{split} {seed}")

    def some(kind: str, draw: Callable[[], Request]) -> list[Line]:
        prompts: dict[str, None] = {}
        while len(prompts) < _REQUESTS // 2:
            prompts[draw().prompt] = None
        return [{"prompt": prompt, "kind": kind} for prompt in prompts]

    return {
        "harmful": [
            *some("direct", lambda: potion(split, rng, story=False)),
            *some("story", lambda: potion(split, rng, story=True)),
        ],
        "harmless": [
            *some("everyday", lambda: drink(split, rng, story=rng.random() < 0.5)),
            *some("look-alike", lambda: look_alike(split, rng)),
        ],
        "utility": [
            {"prompt": asked.prompt, "answer": asked.answer.removeprefix("Sure ! ")}
            for asked in rng.sample(questions(split), _QUESTIONS)
        ],
    }


def _write(path: Path, lines: list[Line]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path
