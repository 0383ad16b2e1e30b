"""Replies that were generated elsewhere, judged in place of a model's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from blake3 import blake3

from patchc.errors import EvaluateError
from patchc.evaluation.journal import is_header
from patchc.evaluation.measure import Subject
from patchc.evaluation.records import Record, read_content, read_records
from patchc.evaluation.requests import Request, RequestSets, SetName
from patchc.evaluation.results import RESULTS, request_digests

_Key = tuple[str | None, str, str]
"""A set, or None for any; "id" or "prompt"; and its text."""

_SHOWN = 40


@dataclass(frozen=True)
class _Line:
    """One reply, and what the file says about its request."""

    source: str
    set: str | None
    id: str | None
    prompt: str | None
    reply: str

    def fits(self, request: Request) -> bool:
        return (self.id is None or request.id in (None, self.id)) and (
            self.prompt is None or self.prompt == request.prompt.strip()
        )


def read_replies(path: Path, requests: RequestSets, name: str) -> Subject:
    """Read a file of ``reply`` with ``prompt`` or ``id``, and find a reply to every request.

    A reply belongs to the request with the same ``id`` and the same prompt, the user's last words.
    A value that one of the two files lacks is not compared. A line may name the ``set`` that it
    belongs to, as the lines of a results file do. Replies to other requests are ignored. The reply
    to a question with choices is the text of one of them.

    Raises:
        EvaluateError: the file cannot be read, a line is malformed, a request has no reply or two
            different ones, or a reply is none of the choices.
    """
    lines: dict[_Key, list[_Line]] = defaultdict(list)
    for record in read_records(path):
        if not is_header(record.values, RESULTS):
            line = _line(record)
            for kind, text in (("id", line.id), ("prompt", line.prompt)):
                if text is not None:
                    lines[line.set, kind, text].append(line)
    found = {
        name: [_find(path, lines, name, request) for request in asked]
        for name, asked in requests.items()
    }

    def speak(name: SetName, numbers: Sequence[int]) -> list[str]:
        return [found[name][number] for number in numbers]

    return Subject(
        name=name,
        path=str(path),
        digest=blake3(read_content(path)).hexdigest(),
        batches={name: [range(len(asked))] for name, asked in requests.items()},
        keys=request_digests(requests),
        speak=speak,
    )


def _line(record: Record) -> _Line:
    source, values = record.source, record.values
    reply, set_name, prompt, number = (
        values.get(name) for name in ("reply", "set", "prompt", "id")
    )
    if not isinstance(reply, str):
        raise EvaluateError(f'{source}: needs a text "reply"')
    for name, value in (("set", set_name), ("prompt", prompt)):
        if not isinstance(value, str | None):
            raise EvaluateError(f'{source}: "{name}" must be a text')
    if prompt is None and number is None:
        raise EvaluateError(f'{source}: needs "prompt" or "id" beside the reply')
    number = None if number is None else str(number)
    return _Line(source, set_name, number, prompt and prompt.strip(), reply)


def _find(path: Path, lines: dict[_Key, list[_Line]], name: SetName, request: Request) -> str:
    for kind, text in (("id", request.id), ("prompt", request.prompt.strip())):
        for set_name in (name, None):
            near = lines.get((set_name, kind, text), []) if text is not None else []
            fitting = _stating_choices([line for line in near if line.fits(request)], request)
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


def _stating_choices(lines: list[_Line], request: Request) -> list[_Line]:
    """Return the lines that state a choice of the request; all of them if it has no choices.

    Other lines may belong to a question of the same words with other choices.
    """
    if not request.choices or not lines:
        return lines
    stripped = [replace(line, reply=line.reply.strip()) for line in lines]
    found = [line for line in stripped if line.reply in request.choices]
    if not found:
        raise EvaluateError(
            f"{lines[0].source}: the reply {lines[0].reply!r:.{_SHOWN}} is none of the choices of "
            f"{request.source}, which are judged by their likelihood under a model; give the text "
            "of the choice that the model took, or leave such questions out"
        )
    return found
