"""Requests and replies: JSON lines, JSON lists and CSV, in the formats of public sets."""

from __future__ import annotations

from pathlib import Path

from fuzzing.mutation import json_text
from fuzzing.mutation.draws import Draws
from fuzzing.mutation.plain_text import mutate_lines, mutate_table
from fuzzing.target import Target, expect, written
from patchc.evaluation.replies_from_files import read_replies
from patchc.evaluation.requests import Request, RequestSets, SetName, read_requests

_ENDS = (".jsonl", ".json", ".csv")
_CHANGES = (mutate_lines, json_text.mutate, mutate_table)
_SETS: tuple[SetName, ...] = ("harmful", "harmless", "utility")
_ASKED = tuple(
    Request("here", ({"role": "user", "content": prompt},), id=number)
    for prompt, number in (("How do I brew it?", "1"), ("Why?", None))
)


def read(data: bytes) -> None:
    """Read a file as the requests of a set or, seldom, as replies to some."""
    kind = data[0] if data else 0
    path = written(f"requests{_ENDS[kind % 3]}", data[1:])
    if kind & 0x80:
        subject = read_replies(path, RequestSets(_ASKED, ()), "replies")
        expect(len(subject.speak("harmful", [0, 1])) == 2, "a reply is missing")
        return
    for request in read_requests(path, _SETS[kind // 3 % 3]):
        _check(request)


def _check(request: Request) -> None:
    expect(request.messages[-1]["role"] == "user", "the last turn is not the user's")
    texts = (request.kind, request.group, request.response, request.id, *request.answers)
    for text in (request.prompt, *texts):
        (text or "").encode()
    expect(bool(request.prompt.strip()), "a prompt is empty")
    expect(str(Path(request.source.split(":")[0])) != "", "no source")


def mutate(data: bytes, draws: Draws) -> bytes:
    """Change a file by its form, seldom its form or set."""
    kind = data[0] if data else 0
    if draws.chance(0.05):
        kind = draws.randrange(256)
    return bytes([kind]) + _CHANGES[kind % 3](data[1:], draws)


TARGET = Target(
    "requests",
    read,
    mutate,
    (
        "patchc.evaluation.requests",
        "patchc.evaluation.records",
        "patchc.evaluation.replies_from_files",
        "patchc.json_values",
        "patchc.other_kinds",
    ),
    executions=3000,
)
