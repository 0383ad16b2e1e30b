"""The requests of a fix: the development and the test requests of each set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from blake3 import blake3

from patchc.errors import DeriveError, EvaluateError
from patchc.evaluation.near_duplicates import check_disjoint
from patchc.evaluation.records import read_content, read_records
from patchc.evaluation.requests import (
    Request,
    RequestSets,
    SetName,
    read_requests,
    with_system,
)
from patchc.evaluation.splits import is_learned_from, split_requests
from patchc.fitting.fit_options import FEWEST
from patchc.fixing.fix_options import FixOptions
from patchc.json_lines import MOST_BYTES, read_objects
from patchc.paths import PathLike
from patchc.regular_file import read_regular
from patchc.stages import Stages
from patchc.strict_json import parse_json
from patchc.system_errors import storage_errors
from patchc.version import __version__

Files = PathLike | tuple[PathLike, PathLike]
"""A file to split, or a pair of files that are split already: development, test."""

SplitName = Literal["development", "test"]
Line = dict[str, Any]
Lines = dict[SetName, list[Line]]

_SETS: tuple[SetName, ...] = ("harmful", "harmless", "utility")
_SPLITS: tuple[SplitName, ...] = ("development", "test")
_SUMMARY = "split.json"
_MOST_BYTES = 1 << 20
_UNFIT = (ValueError, LookupError, TypeError, AttributeError)
_AGAIN = "remove the folder of the split, and it is made again"
_ANSWERED: dict[str, SetName] = {"pair": "harmful", "npo": "harmful", "answers": "harmless"}
"""Objectives that learn from responses, and the set that must have them."""


@dataclass(frozen=True)
class SetSplit:
    """How the requests of one set were split.

    Attributes:
        development, test: number of requests.
        given: whether the caller gave two files, so that nothing was split.
        grouped_by: "group" where requests of one group were kept together, otherwise None.
        near_duplicates: pairs of near-duplicates across development and test; 0 unless ``given``.
        example: where the requests of the first such pair stand.
    """

    development: int
    test: int
    given: bool
    grouped_by: str | None = None
    near_duplicates: int = 0
    example: Sequence[str] | None = None


@dataclass(frozen=True)
class SplitRequests:
    """Development and test requests of every set, as lines that ``evaluate`` and ``fit`` read.

    Harmful requests keep their responses too, for :meth:`conversations`.

    Attributes:
        inputs: what the split is made from, as JSON values.
        lines: the requests of "development" and "test", by set.
        splits: how each set was split.
    """

    inputs: dict[str, Any]
    lines: Mapping[SplitName, Lines]
    splits: dict[SetName, SetSplit]

    def write(self, folder: Path) -> None:
        """Write ``development/harmful.jsonl`` and so on into an existing folder."""
        for split_name, lines in self.lines.items():
            (folder / split_name).mkdir()
            for name, path in files_of(folder, split_name, lines).items():
                path.write_bytes(jsonl(lines[name]))
        summary = {name: asdict(split) for name, split in self.splits.items()}
        (folder / _SUMMARY).write_text(json.dumps(summary), encoding="utf-8")

    def digests(self, split_name: SplitName) -> dict[SetName, str]:
        """Compute the BLAKE3 of each file of one split, in hexadecimal."""
        return {
            name: blake3(jsonl(some)).hexdigest() for name, some in self.lines[split_name].items()
        }

    def request_sets(self, split_name: SplitName) -> RequestSets:
        """Return the messages and kinds of the requests of one split."""
        lines = self.lines[split_name]
        return RequestSets(*(tuple(_requests(lines.get(name, []))) for name in _SETS))

    def learned(self, options: FixOptions) -> Lines:
        """Return the development requests to learn from; a fit learns from the same ones."""
        share, seed = options.fitting.validation, options.fitting.seed
        found: Lines = {}
        for name, lines in self.lines["development"].items():
            inside = is_learned_from(_requests(lines), name, share, seed)
            found[name] = [line for line, learned in zip(lines, inside, strict=True) if learned]
        return found

    def conversations(self, options: FixOptions) -> Lines:
        """Return what the derivation reads: messages, with the response as the last turn.

        The system message of the options is added here, because a derivation adds none.
        """
        learned = self.learned(options)
        answered = _ANSWERED.get(options.derive.objective)
        if answered:
            learned[answered] = [line for line in learned[answered] if "response" in line]
        system = options.asking.system
        return {
            name: [{"messages": _conversation(line, system)} for line in lines]
            for name, lines in learned.items()
        }

    def check(self, options: FixOptions) -> None:
        """Refuse too few requests and missing responses before anything is computed.

        Raises:
            EvaluateError: there are fewer requests than a fit needs.
            DeriveError: the objective learns from responses and there is none.
        """
        for name in ("harmful", "harmless"):
            count = self.splits[name].development
            if count < FEWEST:
                raise EvaluateError(
                    f"{count} {name} requests for development are too few to fit on; give at least "
                    f"{FEWEST} in that part, better a hundred"
                )
        objective = options.derive.objective
        needed = _ANSWERED.get(objective)
        if needed and len(self._without_response(needed)) == self.splits[needed].development:
            kind = "a compliant answer" if needed == "harmful" else "an answer"
            raise DeriveError(
                f"objective {objective} learns from the responses to {needed} requests, and none "
                f"of {self.splits[needed].development} has one; give each a response ({kind}), or "
                "take the objective margin, which needs none"
            )

    def warnings(self, options: FixOptions) -> list[str]:
        """Say what limits the meaning of the figures."""
        found = [
            f"{name}: {split.near_duplicates} pairs of near-duplicates stand in development and "
            f"test, the first at {split.example[0]} and {split.example[1]}; the test figures are "
            "better than on new requests"
            for name, split in self.splits.items()
            if split.example
        ]
        objective = options.derive.objective
        needed = _ANSWERED.get(objective)
        without = self._without_response(needed) if needed else []
        if needed and without:
            found.append(
                f"{len(without)} of {self.splits[needed].development} {needed} development "
                f"requests have no response; objective {objective} does not learn from them"
            )
        return found

    def _without_response(self, name: SetName) -> list[Line]:
        return [line for line in self.lines["development"][name] if "response" not in line]


def files_of(folder: Path, split_name: SplitName, names: Iterable[SetName]) -> dict[SetName, Any]:
    """Return the files of one split that :meth:`SplitRequests.write` wrote, by set."""
    return {name: folder / split_name / f"{name}.jsonl" for name in names}


def open_split(
    work: Path, files: Mapping[SetName, tuple[Path, ...]], options: FixOptions
) -> SplitRequests:
    """Read the split that is kept in ``work``, or read and split the requests.

    Each set has one file to split, or two: development and test.

    Raises:
        EvaluateError: requests cannot be read or cannot be split.
        StorageError: a file of the kept split cannot be read.
    """
    digests = {name: [_digest(path) for path in paths] for name, paths in files.items()}
    inputs = {
        "patchc": __version__,
        "files": {name: some if len(some) > 1 else some[0] for name, some in digests.items()},
        "limit": options.asking.limit,
        "test_share": options.test_share,
        "seed": options.seed,
    }
    if Stages(work).done("split", inputs):
        return _read_split(work / "split", inputs)
    lines: dict[SplitName, Lines] = {split_name: {} for split_name in _SPLITS}
    splits: dict[SetName, SetSplit] = {}
    for name, paths in files.items():
        asked = [read_requests(path, name)[: options.asking.limit] for path in paths]
        if len(asked) > 1:
            splits[name] = _given_split(*asked)
        else:
            (requests,) = asked
            split = split_requests(requests, 1.0 - options.test_share, options.seed)
            asked = [
                tuple(requests[number] for number in numbers)
                for numbers in (split.development, split.test)
            ]
            splits[name] = SetSplit(len(asked[0]), len(asked[1]), False, split.grouped_by)
        responses = _responses(name, paths)
        for split_name, some in zip(_SPLITS, asked, strict=True):
            lines[split_name][name] = [_line(request, responses) for request in some]
    return SplitRequests(inputs, lines, splits)


def _digest(path: Path) -> str:
    return blake3(read_content(path)).hexdigest()


def jsonl(lines: Sequence[Line]) -> bytes:
    """Encode lines as JSON, in ASCII because an id may hold half a character."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _read_split(folder: Path, inputs: dict[str, Any]) -> SplitRequests:
    path = folder / _SUMMARY
    try:
        with storage_errors(path, "read"):
            summary = parse_json(read_regular(path, _MOST_BYTES))
        splits = {name: _read_set_split(summary[name]) for name in inputs["files"]}
        lines: dict[SplitName, Lines] = {}
        for split_name in _SPLITS:
            lines[split_name] = {}
            for name, path in files_of(folder, split_name, splits).items():
                with storage_errors(path, "read"):
                    content = read_regular(path, MOST_BYTES)
                found = read_objects(path, content, EvaluateError, _AGAIN)
                lines[split_name][name] = [line for _, line in found]
                if len(_requests(lines[split_name][name])) != getattr(splits[name], split_name):
                    raise ValueError(f"{split_name} has another number of requests")
    except _UNFIT as error:
        raise EvaluateError(
            f"{path}: not what a split was written as ({type(error).__name__}: {error!s:.200}); "
            f"{_AGAIN}"
        ) from error
    return SplitRequests(inputs, lines, splits)


def _read_set_split(content: dict[str, Any]) -> SetSplit:
    example = content["example"]
    return SetSplit(**content | {"example": tuple(example) if example else None})


def _given_split(development: Sequence[Request], test: Sequence[Request]) -> SetSplit:
    pairs = check_disjoint(development, test)
    example = (development[pairs[0][0]].source, test[pairs[0][1]].source) if pairs else None
    return SetSplit(len(development), len(test), True, None, len(pairs), example)


def _responses(name: SetName, files: Iterable[Path]) -> dict[str, str]:
    """Find the responses that requests leave out, by place: harmful ones, and last turns."""
    found = {}
    for record in (record for path in files for record in read_records(path)):
        values = record.values
        response = values.get("response") if name == "harmful" else None
        if str(values.get("is_safe")).lower() == "true":
            response = None
        messages = values.get("messages")
        if isinstance(messages, list) and messages and messages[-1]["role"] == "assistant":
            response = messages[-1]["content"]
        if isinstance(response, str) and response.strip():
            found[record.source] = response.strip()
    return found


def _line(request: Request, responses: Mapping[str, str]) -> Line:
    choices = request.choices
    line = {
        "messages": list(request.messages),
        "answers": None if choices else list(request.answers) or None,
        "choices": list(choices) or None,
        "answer": choices.index(request.answers[0]) if choices else None,
        "id": request.id,
        "kind": request.kind,
        "group": request.group,
        "response": request.response or responses.get(request.source),
    }
    return {name: value for name, value in line.items() if value is not None}


def _requests(lines: Sequence[Line]) -> list[Request]:
    return [Request("", tuple(line["messages"]), kind=line.get("kind")) for line in lines]


def _conversation(line: Line, system: str | None) -> list[dict[str, str]]:
    messages = with_system(line["messages"], system)
    if "response" in line:
        messages.append({"role": "assistant", "content": line["response"]})
    return messages
