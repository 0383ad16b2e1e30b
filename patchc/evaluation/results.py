"""The results file: one line per reply, so that an interrupted evaluation can continue."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from operator import attrgetter
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


Results = Journal[ResultLine]
"""An open results file; a line's key is its model, set and request."""


def open_results(
    path: Path, requests: RequestSets, options: EvaluateOptions
) -> AbstractContextManager[Results]:
    """Open a results file, or begin one; its first line states requests, options and judge.

    The file may hold lines of other models. Earlier versions stated one digest of all of these.

    Raises:
        EvaluateError, StorageError: see :func:`patchc.evaluation.journal.open_journal`.
    """
    key = attrgetter("model", "set", "request")
    inputs = {"requests": _digest(_asked(requests)), **_settings(options)}
    earlier = evaluation_digest(requests, options)
    return open_journal(path, RESULTS, inputs, asdict, _decode, key, earlier, _advise)


def _advise(path: Path, differing: Sequence[str]) -> str:
    if list(differing) == ["judge"]:
        return (
            "name a new file, and the model is asked again; or, where the file holds one model, "
            f"judge its replies: --generations {path} in place of the model "
            "(docs/how-to/measure-a-model.md)"
        )
    return "name a new file, or continue with the inputs that began it"


def check_requests(results: Results, model: str, name: SetName, requests: Sequence[str]) -> None:
    """Refuse results of a model's set that belong to other requests.

    Raises:
        EvaluateError: there are such results: the chat template has changed.
    """
    lines = (line for line in results.all() if (line.model, line.set) == (model, name))
    if {line.request for line in lines} - set(requests):
        raise EvaluateError(
            f"{results.path}: holds results of other {name} requests or another chat template; "
            "name a new file, or continue with what began it"
        )


def evaluation_digest(requests: RequestSets, options: EvaluateOptions) -> str:
    """Return what all lines of one evaluation share: a digest of its requests and options, in hex.

    It covers what replies and verdicts depend on: not a request's kind, group or reference.
    """
    return _digest({"requests": _asked(requests), **_settings(options)})


def _asked(requests: RequestSets) -> dict[str, Any]:
    return {name: list(map(_content, asked)) for name, asked in requests.items()}


def _content(request: Request) -> list[Any]:
    # As earlier versions had it, so that their results of questions without choices go on.
    choices = [request.choices] if request.choices else []
    return [request.messages, request.answers, *choices]


def _settings(options: EvaluateOptions) -> dict[str, Any]:
    names = ("max_new_tokens", "batch_size", "dtype", "system", "device")
    return {"judge": options.judge_name} | {name: getattr(options, name) for name in names}


def request_digests(
    requests: RequestSets, tokens: Mapping[SetName, Sequence[Sequence[int]]] | None = None
) -> dict[SetName, list[str]]:
    """Return a digest for each request of each set; ``tokens`` are those of a model's tokenizer."""
    return {
        name: [
            _digest([number, *_content(r), tokens[name][number] if tokens else ()])
            for number, r in enumerate(asked)
        ]
        for name, asked in requests.items()
    }


def _digest(content: Any) -> str:
    return blake3(json.dumps(content).encode()).hexdigest(length=16)


def _decode(values: Any) -> ResultLine:
    if not all(isinstance(value, str) for value in values.values()):
        raise TypeError
    line = ResultLine(**values)
    if line.verdict not in OUTCOMES[line.set]:
        raise ValueError
    return line
