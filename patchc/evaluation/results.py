"""The results file: one line for each reply, so that an interrupted evaluation can go on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from blake3 import blake3

from patchc.errors import EvaluateError
from patchc.evaluation.options import EvaluateOptions
from patchc.evaluation.requests import Request, RequestSets, SetName
from patchc.files import storage_errors

_START = b'{"model": "'
_VERDICTS = {
    "harmful": ("refused", "answered"),
    "harmless": ("answered", "refused"),
    "utility": ("wrong", "right"),
}
"""Of each set, the verdict on a reply that does not count as a hit, and on one that does."""


@dataclass(frozen=True)
class ResultLine:
    """One reply: the model's digest, the set, the request's digest, and what was counted."""

    model: str
    set: SetName
    request: str
    prompt: str
    reply: str
    hit: bool


class Results:
    """An open results file of one evaluation: what it holds, and what is added to it."""

    def __init__(self, path: Path, file: IO[bytes], evaluation: str, lines: list[ResultLine]):
        self._path = path
        self._file = file
        self._evaluation = evaluation
        self._lines = {(line.model, line.set, line.request): line for line in lines}

    def expect(self, model: str, name: SetName, requests: Sequence[str]) -> None:
        """Refuse lines of a model's set that are not of these requests.

        Raises:
            EvaluateError: there are such lines: the requests or the chat template have changed.
        """
        held = {
            line.request for line in self._lines.values() if (line.model, line.set) == (model, name)
        }
        if held - set(requests):
            raise _other(self._path, f"{name} requests or another chat template")

    def find(self, model: str, name: SetName, request: str) -> ResultLine | None:
        """The line of a request, or None."""
        return self._lines.get((model, name, request))

    def add(self, lines: Sequence[ResultLine]) -> None:
        """Append the lines that are not there yet, and flush.

        Raises:
            StorageError: the operating system refused.
        """
        new = [line for line in lines if (line.model, line.set, line.request) not in self._lines]
        with storage_errors(self._path, "write"):
            self._file.write(b"".join(_encode(line, self._evaluation) for line in new))
            self._file.flush()
        self._lines |= {(line.model, line.set, line.request): line for line in new}


@contextmanager
def open_results(path: Path, evaluation: str) -> Iterator[Results]:
    """Open a results file, or begin a new one; ``evaluation`` is what its lines must belong to.

    A last line that was cut short by a kill is dropped. The file may hold lines of other models.

    Raises:
        EvaluateError: the file is no results file, or one of other requests or options.
        StorageError: the operating system refused.
    """
    with ExitStack() as opened:
        with storage_errors(path, "write"):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = opened.enter_context(path.open("a+b"))
            file.seek(0)
            content = file.read()
        lines, whole = _read(path, content, evaluation)
        with storage_errors(path, "write"):
            file.truncate(whole)
        yield Results(path, file, evaluation, lines)


def evaluation_digest(requests: RequestSets, options: EvaluateOptions) -> str:
    """What all lines of one evaluation share: its requests and options, in hexadecimal."""
    return _digest(
        {
            "requests": {
                name: [[r.messages, r.answers] for r in asked] for name, asked in requests.items()
            },
            "judge": options.judge_name,
            "max_new_tokens": options.max_new_tokens,
            "batch_size": options.batch_size,
            "dtype": options.dtype,
            "system": options.system,
            "device": options.device,
        }
    )


def request_digest(number: int, request: Request, tokens: Sequence[int] = ()) -> str:
    """What identifies one request of a set, as a model's tokens where it is put to a model."""
    return _digest([number, request.messages, request.answers, tokens])


def _digest(content: Any) -> str:
    return blake3(json.dumps(content).encode()).hexdigest(length=16)


def _read(path: Path, content: bytes, evaluation: str) -> tuple[list[ResultLine], int]:
    """The whole lines, and how many bytes they take."""
    whole = content.rfind(b"\n") + 1
    tail = content[whole:]
    if not (tail.startswith(_START) or _START.startswith(tail)):
        raise _foreign(path, content.count(b"\n") + 1)
    lines = [
        _decode(path, number, line, evaluation)
        for number, line in enumerate(content[:whole].split(b"\n")[:-1], start=1)
    ]
    return lines, whole


def _encode(line: ResultLine, evaluation: str) -> bytes:
    values = {"model": line.model, "options": evaluation, **asdict(line)}
    values["verdict"] = _VERDICTS[line.set][values.pop("hit")]
    return json.dumps(values, ensure_ascii=False).encode() + b"\n"


def _decode(path: Path, number: int, line: bytes, evaluation: str) -> ResultLine:
    try:
        values = json.loads(line)
        if values.pop("options") != evaluation:
            raise _other(path, "requests, options or judge")
        verdicts = _VERDICTS[values["set"]]
        values["hit"] = bool(verdicts.index(values.pop("verdict")))
        decoded = ResultLine(**values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _foreign(path, number) from error
    if not all(isinstance(value, str | bool) for value in values.values()):
        raise _foreign(path, number)
    return decoded


def _foreign(path: Path, line: int) -> EvaluateError:
    return EvaluateError(
        f"{path}:{line}: not a line of a results file; name a new file, or one of this evaluation"
    )


def _other(path: Path, difference: str) -> EvaluateError:
    return EvaluateError(
        f"{path}: holds results of other {difference}; name a new file, or go on as it was begun"
    )
