"""Replies that were generated elsewhere, in place of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from patchc.errors import EvaluateError
from patchc.evaluation.journal import is_header
from patchc.evaluation.measure import Subject
from patchc.evaluation.records import Record, read_records
from patchc.evaluation.requests import Request, RequestSets, SetName
from patchc.evaluation.results import RESULTS, request_digest
from patchc.json_values import has_half_character

_Key = tuple[str | None, str, str]
"""A set or None for any, "id" or "prompt", and its text."""


@dataclass(frozen=True)
class _Line:
    """One reply, and what the file says of the request that it is to."""

    source: str
    set: str | None
    id: str | None
    prompt: str | None
    reply: str

    def names(self) -> list[_Key]:
        """What it may be looked for by."""
        named = (("id", self.id), ("prompt", self.prompt))
        return [(self.set, kind, text) for kind, text in named if text is not None]

    def fits(self, request: Request) -> bool:
        return (self.id is None or request.id in (None, self.id)) and (
            self.prompt is None or self.prompt == request.prompt.strip()
        )


def read_replies(path: Path, requests: RequestSets, name: str) -> Subject:
    """Read a file of ``reply`` with ``prompt`` or ``id``, and find one for every request.

    A reply is to the request of the same ``id`` and the same prompt, the user's last words; what
    one of the two files lacks is not compared. A line may name the ``set`` that it belongs to, as
    the lines of a results file do. Replies to other requests are ignored.

    Raises:
        EvaluateError: the file cannot be read, a line is malformed, a request has no reply, or two
            different ones.
    """
    lines: dict[_Key, list[_Line]] = {}
    for record in read_records(path):
        if is_header(record.values, RESULTS):
            continue
        line = _line(record)
        for key in line.names():
            lines.setdefault(key, []).append(line)
    found = {
        name: [_find(path, lines, name, request) for request in asked]
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


def _line(record: Record) -> _Line:
    source, values = record.source, record.values
    reply, belongs, prompt = (values.get(name) for name in ("reply", "set", "prompt"))
    if not isinstance(reply, str) or has_half_character(reply):
        raise EvaluateError(f'{source}: needs a text "reply", without half characters')
    if belongs is not None and not isinstance(belongs, str):
        raise EvaluateError(f'{source}: "set" must be a text')
    if prompt is not None and not isinstance(prompt, str):
        raise EvaluateError(f'{source}: "prompt" must be a text')
    if prompt is None and values.get("id") is None:
        raise EvaluateError(f'{source}: needs "prompt" or "id" beside the reply')
    return _Line(
        source,
        belongs,
        None if values.get("id") is None else str(values["id"]),
        None if prompt is None else prompt.strip(),
        reply,
    )


def _find(path: Path, lines: dict[_Key, list[_Line]], name: SetName, request: Request) -> str:
    for kind, text in (("id", request.id), ("prompt", request.prompt.strip())):
        for belongs in (name, None):
            near = lines.get((belongs, kind, text), []) if text is not None else []
            fitting = [line for line in near if line.fits(request)]
            for line in fitting[1:]:
                if line.reply != fitting[0].reply:
                    raise EvaluateError(
                        f"{line.source}: another reply to the request of {request.source}"
                    )
            if fitting:
                return fitting[0].reply
    raise EvaluateError(
        f"{path}: holds no reply to the {name} request of {request.source} whose id and prompt fit"
    )
