"""The results file: one line for each reply, so that an interrupted evaluation can go on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from patchc.errors import EvaluateError
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.journal import Journal, open_journal
from patchc.evaluation.requests import Request, RequestSets, SetName
from patchc.evaluation.verdicts import OUTCOMES, Outcome

RESULTS = "evaluation"
"""The kind of journal that a results file is."""


@dataclass(frozen=True)
class ResultLine:
    """One reply: the model's digest, the set, the request's digest, and what it is counted as."""

    model: str
    set: SetName
    request: str
    prompt: str
    reply: str
    verdict: Outcome


class Results:
    """An open results file of one evaluation: what it holds, and what is added to it."""

    def __init__(self, journal: Journal[ResultLine]) -> None:
        self._journal = journal
        self._lines = {_key(line): line for line in journal.entries}

    def expect(self, model: str, name: SetName, requests: Sequence[str]) -> None:
        """Refuse lines of a model's set that are not of these requests.

        Raises:
            EvaluateError: there are such lines: the chat template has changed.
        """
        held = {
            line.request for line in self._lines.values() if (line.model, line.set) == (model, name)
        }
        if held - set(requests):
            raise EvaluateError(
                f"{self._journal.path}: holds results of other {name} requests or another chat "
                "template; name a new file, or go on as it was begun"
            )

    def find(self, model: str, name: SetName, request: str) -> ResultLine | None:
        """The line of a request, or None."""
        return self._lines.get((model, name, request))

    def add(self, lines: Sequence[ResultLine]) -> None:
        """Append the lines that are not there yet.

        Raises:
            StorageError: the operating system refused.
        """
        new = [line for line in lines if _key(line) not in self._lines]
        self._journal.add(new)
        self._lines |= {_key(line): line for line in new}


@contextmanager
def open_results(path: Path, evaluation: str) -> Iterator[Results]:
    """Open a results file, or begin one; ``evaluation`` is what its lines must belong to.

    The file may hold lines of other models.

    Raises:
        EvaluateError, StorageError: see :func:`patchc.evaluation.journal.open_journal`.
    """
    with open_journal(path, RESULTS, evaluation, asdict, _decode) as journal:
        yield Results(journal)


def evaluation_digest(requests: RequestSets, options: EvaluateOptions) -> str:
    """What all lines of one evaluation share: its requests and options, in hexadecimal.

    Of a request, what its reply and verdict depend on; kinds, groups and references are not.
    """
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


def _key(line: ResultLine) -> tuple[str, SetName, str]:
    return line.model, line.set, line.request


def _decode(values: Any) -> ResultLine:
    if not all(isinstance(value, str) for value in values.values()):
        raise TypeError
    line = ResultLine(**values)
    if line.verdict not in OUTCOMES[line.set]:
        raise ValueError
    return line
