"""The requests of a fix: a development and a test part of each set, and what is learned from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from patchc.errors import DeriveError, EvaluateError
from patchc.evaluation.records import read_records
from patchc.evaluation.requests import Request, RequestSets, SetName, read_requests
from patchc.evaluation.splits import check_disjoint, split_requests
from patchc.evaluation.validation import is_learned_from
from patchc.files import storage_errors
from patchc.fitting.fit_options import FEWEST
from patchc.fixing.fix_options import FixOptions

PathLike = str | os.PathLike[str]
Files = PathLike | tuple[PathLike, PathLike]
"""A file to split, or a pair of files to take as they are: development, test."""

Line = dict[str, Any]
Lines = dict[SetName, list[Line]]

SETS: tuple[SetName, ...] = ("harmful", "harmless", "utility")
DEVELOPMENT, TEST = "development", "test"

_SUMMARY = "split.json"
_ANSWERED: dict[str, SetName] = {"pair": "harmful", "npo": "harmful", "answers": "harmless"}
"""Objectives that learn from responses, and the set that must have them."""


@dataclass(frozen=True)
class SetSplit:
    """How the requests of one set were parted.

    Attributes:
        development, test: how many requests each part has.
        given: whether the parts were given as they are.
        grouped_by: "group" where requests of one group were kept together, otherwise None.
        near_duplicates: pairs of near-duplicates with one request in each part; 0 unless given.
        example: places of the first such pair.
    """

    development: int
    test: int
    given: bool
    grouped_by: str | None = None
    near_duplicates: int = 0
    example: tuple[str, str] | None = None


@dataclass(frozen=True)
class Parts:
    """Both parts of every set, as lines that ``evaluate`` and ``fit`` read.

    A harmful request keeps its response too, which :func:`learned` makes use of.
    """

    development: Lines
    test: Lines
    splits: dict[SetName, SetSplit]

    def write(self, folder: Path) -> None:
        """Write ``development/harmful.jsonl`` and so on into an existing folder."""
        for part, lines in ((DEVELOPMENT, self.development), (TEST, self.test)):
            (folder / part).mkdir()
            for name, some in lines.items():
                _file(folder, part, name).write_bytes(jsonl(some))
        summary = {name: asdict(split) for name, split in self.splits.items()}
        (folder / _SUMMARY).write_text(json.dumps(summary), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Parts:
        """What :meth:`write` wrote.

        Raises:
            StorageError: a file cannot be read, or is no longer there.
        """
        with storage_errors(folder, "read"):
            summary = json.loads((folder / _SUMMARY).read_bytes())
            splits = {name: _split_of(content) for name, content in summary.items()}
            development, test = (
                {name: _parse(_file(folder, part, name)) for name in splits}
                for part in (DEVELOPMENT, TEST)
            )
        return cls(development, test, splits)

    def digests(self, part: str) -> dict[SetName, str]:
        """BLAKE3 of each file of a part, in hexadecimal."""
        lines = self.development if part == DEVELOPMENT else self.test
        return {name: blake3(jsonl(some)).hexdigest() for name, some in lines.items()}

    def learned_marks(self, options: FixOptions) -> dict[SetName, list[bool]]:
        """Of each development request, whether it is learned from; the fit draws the same part."""
        fitting = options.fitting
        return {
            name: is_learned_from(_requests(lines), name, fitting.validation, fitting.seed)
            for name, lines in self.development.items()
        }


def files_of(folder: Path, part: str, names: Sequence[SetName]) -> dict[str, Any]:
    """The files of a part that :meth:`Parts.write` wrote, as arguments by set."""
    return {name: _file(folder, part, name) for name in names}


def request_sets(lines: Lines) -> RequestSets:
    """The requests of a part, as far as rates by kind need them."""
    return RequestSets(*(tuple(_requests(lines.get(name, []))) for name in SETS))


def part_requests(files: Mapping[SetName, Files], options: FixOptions) -> Parts:
    """Read every set, and split those that are one file.

    Raises:
        EvaluateError: requests cannot be read, or do not fall into two parts.
    """
    development: Lines = {}
    test: Lines = {}
    splits: dict[SetName, SetSplit] = {}
    limit = options.asking.limit
    for name, given in files.items():
        if isinstance(given, tuple):
            first, second = (read_requests(Path(path), name)[:limit] for path in given)
            splits[name] = _as_given(first, second)
        else:
            asked = read_requests(Path(given), name)[:limit]
            split = split_requests(asked, 1.0 - options.test_share, options.seed)
            first, second = (
                tuple(asked[number] for number in numbers)
                for numbers in (split.development, split.test)
            )
            splits[name] = SetSplit(len(first), len(second), False, split.grouped_by)
        responses = _responses(name, given if isinstance(given, tuple) else (given,))
        development[name], test[name] = (
            [_line(request, responses) for request in part] for part in (first, second)
        )
    return Parts(development, test, splits)


def check_parts(parts: Parts, options: FixOptions) -> None:
    """Refuse, before anything is computed, too few requests and responses that are missing.

    Raises:
        EvaluateError: a fit would refuse so few requests.
        DeriveError: the objective learns from responses and there is none.
    """
    for name in ("harmful", "harmless"):
        count = parts.splits[name].development
        if count < FEWEST:
            raise EvaluateError(
                f"{count} {name} requests for development are too few to fit on; give at least "
                f"{FEWEST} in that part, better a hundred"
            )
    needed = _ANSWERED.get(options.derive.objective)
    if needed and not any("response" in line for line in parts.development[needed]):
        kind = "a compliant answer" if needed == "harmful" else "an answer"
        raise DeriveError(
            f"objective {options.derive.objective} learns from the responses to {needed} requests, "
            f"and none of {parts.splits[needed].development} has one; give each a response ("
            f"{kind}), or take the objective margin, which needs none"
        )


def split_warnings(parts: Parts, options: FixOptions) -> tuple[str, ...]:
    """What makes the parts less than they seem."""
    found = []
    for name, split in parts.splits.items():
        if split.near_duplicates and split.example:
            found.append(
                f"{name}: {split.near_duplicates} pairs of near-duplicates stand in development "
                f"and test, the first at {split.example[0]} and {split.example[1]}; the test "
                "figures are better than on new requests"
            )
    needed = _ANSWERED.get(options.derive.objective)
    lines = parts.development[needed] if needed else []
    without = sum("response" not in line for line in lines)
    if without:
        found.append(
            f"{without} of {len(lines)} {needed} development requests have no response; "
            f"objective {options.derive.objective} does not learn from them"
        )
    return tuple(found)


def learned(parts: Parts, options: FixOptions) -> Lines:
    """The part that derivation learns from: messages alone, a response as the last turn.

    Requests get the system message of the options here, because a derivation adds none.
    """
    marks = parts.learned_marks(options)
    found: Lines = {}
    for name, lines in parts.development.items():
        chosen = [line for line, inside in zip(lines, marks[name], strict=True) if inside]
        if _ANSWERED.get(options.derive.objective) == name:
            chosen = [line for line in chosen if "response" in line]
        found[name] = [{"messages": _conversation(line, options.asking.system)} for line in chosen]
    return found


def jsonl(lines: Sequence[Line]) -> bytes:
    """Lines of JSON, in ASCII: an id may hold what UTF-8 does not."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _as_given(development: Sequence[Request], test: Sequence[Request]) -> SetSplit:
    pairs = check_disjoint(development, test)
    example = (development[pairs[0][0]].source, test[pairs[0][1]].source) if pairs else None
    return SetSplit(len(development), len(test), True, None, len(pairs), example)


def _responses(name: SetName, files: Sequence[PathLike]) -> dict[str, str]:
    """By place, the responses that requests leave out: of the harmful set, and last turns."""
    found = {}
    for record in (record for path in files for record in read_records(Path(path))):
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
    line = {
        "messages": list(request.messages),
        "answers": list(request.answers) or None,
        "id": request.id,
        "kind": request.kind,
        "group": request.group,
        "response": request.response or responses.get(request.source),
    }
    return {name: value for name, value in line.items() if value is not None}


def _requests(lines: Sequence[Line]) -> list[Request]:
    return [Request("", tuple(line["messages"]), kind=line.get("kind")) for line in lines]


def _conversation(line: Line, system: str | None) -> list[dict[str, str]]:
    messages = list(line["messages"])
    if system is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    if "response" in line:
        messages.append({"role": "assistant", "content": line["response"]})
    return messages


def _file(folder: Path, part: str, name: SetName) -> Path:
    return folder / part / f"{name}.jsonl"


def _parse(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def _split_of(content: dict[str, Any]) -> SetSplit:
    example = content.pop("example")
    return SetSplit(**content, example=tuple(example) if example else None)
