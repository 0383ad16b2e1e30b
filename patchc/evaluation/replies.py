"""Replies that were generated elsewhere, in place of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blake3 import blake3

from patchc.errors import EvaluateError
from patchc.evaluation.measure import Subject
from patchc.evaluation.records import Record, read_records
from patchc.evaluation.requests import Request, RequestSets, SetName
from patchc.evaluation.results import request_digest

_Key = tuple[str | None, str, str]
"""A set or None for any, "id" or "prompt", and its text."""


def read_replies(path: Path, requests: RequestSets, name: str) -> Subject:
    """Read a file of ``reply`` with ``prompt`` or ``id``, and find one for every request.

    A request is found by its ``id`` where both files have it, or else by its prompt: the user's
    last words. A line may name the ``set`` that it belongs to, as the lines of a results file do.
    Replies to other requests are ignored.

    Raises:
        EvaluateError: the file cannot be read, a line is malformed, a request has no reply, or two
            different ones.
    """
    replies: dict[_Key, str] = {}
    for record in read_records(path):
        reply = record.values.get("reply")
        if not isinstance(reply, str):
            raise EvaluateError(f'{record.source}: needs a text "reply"')
        for key in _keys(record):
            if replies.setdefault(key, reply) != reply:
                raise EvaluateError(f"{record.source}: another reply for the same {key[1]}")
    found = {
        name: [_find(path, replies, name, request) for request in asked]
        for name, asked in requests.items()
    }

    def speak(name: SetName, numbers: Sequence[int]) -> list[str]:
        return [found[name][number] for number in numbers]

    return Subject(
        name=name,
        path=str(path),
        digest=blake3(path.read_bytes()).hexdigest(),
        batches={name: [range(len(asked))] for name, asked in requests.items()},
        keys={
            name: [request_digest(number, request) for number, request in enumerate(asked)]
            for name, asked in requests.items()
        },
        speak=speak,
    )


def _keys(record: Record) -> list[_Key]:
    belongs = record.values.get("set")
    keys: list[_Key] = []
    if record.values.get("id") is not None:
        keys.append((belongs, "id", str(record.values["id"])))
    if isinstance(record.values.get("prompt"), str):
        keys.append((belongs, "prompt", record.values["prompt"]))
    if not keys:
        raise EvaluateError(f'{record.source}: needs "prompt" or "id" beside the reply')
    return keys


def _find(path: Path, replies: dict[_Key, str], name: SetName, request: Request) -> str:
    kinds = [("id", request.id), ("prompt", request.prompt)]
    for kind, text in kinds:
        for belongs in (name, None):
            if text is not None and (belongs, kind, text) in replies:
                return replies[belongs, kind, text]
    raise EvaluateError(f"{path}: holds no reply to the {name} request of {request.source}")
