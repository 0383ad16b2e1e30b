"""The lines of a landscape file: what was found at one place; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from patchc.evaluation.journal import Journal, open_journal
from patchc.evaluation.requests import SetName
from patchc.evaluation.verdicts import OUTCOMES, Outcome
from patchc.landscape.place import Place

LANDSCAPE = "landscape"
"""The kind of journal that a landscape file is."""

UNFIT = (
    ValueError, LookupError, TypeError, AttributeError, ZeroDivisionError, OverflowError,
    RecursionError,
)  # fmt: skip
"""What reading a line that is none may raise."""

What = Literal["replies", "margins"]


@dataclass(frozen=True)
class Reply:
    """A reply, what it is counted as, and whether it is coherent; all answers to questions are."""

    text: str
    outcome: Outcome
    coherent: bool


@dataclass(frozen=True)
class ReplyLine:
    """The replies at a place, by set, in the order of the requests."""

    place: Place
    system: bool
    replies: Mapping[SetName, tuple[Reply, ...]]

    what: What = "replies"


@dataclass(frozen=True)
class MarginLine:
    """The margins of refusal at a place, by set, in the order of the requests."""

    place: Place
    system: bool
    margins: Mapping[SetName, tuple[float, ...]]

    what: What = "margins"


Line = ReplyLine | MarginLine
LandscapeFile = Journal[Line]


def open_lines(path: Path, inputs: Mapping[str, Any]) -> AbstractContextManager[LandscapeFile]:
    """Open a landscape file, or begin one; its first line states what it belongs to.

    Raises:
        EvaluateError, StorageError: see :func:`patchc.evaluation.journal.open_journal`.
    """
    return open_journal(path, LANDSCAPE, inputs, _encode, decode_line, key_of)


def key_of(line: Line) -> Any:
    """Return what a line is found by."""
    return place_key(line.place, line.system, line.what)


def place_key(place: Place, system: bool, what: What) -> Any:
    """Return what the line of a place is found by."""
    return [place.to_json(), system, what]


def decode_line(content: Any) -> Line:
    """Read a line; other content raises the errors that a journal expects."""
    place, system = Place.from_json(content["at"]), content["system"]
    if type(system) is not bool:
        raise TypeError
    if "margins" in content:
        margins = {
            _set_name(name): tuple(map(float, given)) for name, given in content["margins"].items()
        }
        return MarginLine(place, system, margins)
    replies = {
        _set_name(name): tuple(_decode_reply(name, one) for one in given)
        for name, given in content["replies"].items()
    }
    return ReplyLine(place, system, replies)


def _set_name(name: Any) -> SetName:
    if name not in OUTCOMES:
        raise ValueError
    found: SetName = name
    return found


def _decode_reply(name: SetName, content: Sequence[Any]) -> Reply:
    text, outcome, coherent = content
    if type(text) is not str or type(coherent) is not bool or outcome not in OUTCOMES[name]:
        raise ValueError
    return Reply(text, outcome, coherent)


def _encode(line: Line) -> dict[str, Any]:
    content: dict[str, Any] = {"at": line.place.to_json(), "system": line.system}
    if isinstance(line, MarginLine):
        return content | {"margins": {name: list(one) for name, one in line.margins.items()}}
    return content | {
        "replies": {
            name: [[one.text, one.outcome, one.coherent] for one in replies]
            for name, replies in line.replies.items()
        }
    }
