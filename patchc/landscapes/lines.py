"""The lines of a landscape file: what was found at one place; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from patchc.evaluation.journal import Journal, open_journal
from patchc.evaluation.requests import SetName
from patchc.evaluation.verdicts import OUTCOMES, Outcome
from patchc.landscapes.place import Place, as_number

LANDSCAPE = "landscape"
"""The kind of journal that a landscape file is."""

JUDGED_SETS: tuple[SetName, ...] = ("harmful", "harmless")
"""The sets whose replies are judged, and whose requests have margins."""

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
    decode = partial(decode_line, counts=inputs["counts"])
    return open_journal(path, LANDSCAPE, inputs, _encode, decode, key_of)


def key_of(line: Line) -> Any:
    """Return what a line is found by."""
    return place_key(line.place, line.system, line.what)


def place_key(place: Place, system: bool, what: What) -> Any:
    """Return what the line of a place is found by."""
    return [place.to_json(), system, what]


def decode_line(content: Any, counts: Mapping[SetName, int]) -> Line:
    """Read a line; other content raises the errors that a journal expects.

    Args:
        content: JSON values.
        counts: how many requests each set has.
    """
    place, system = Place.from_json(content["at"]), content["system"]
    if type(system) is not bool:
        raise TypeError("system is neither true nor false")
    if "margins" in content:
        given = content["margins"]
        _check_counts(given, {name: counts[name] for name in JUDGED_SETS})
        margins = {name: tuple(map(as_number, given[name])) for name in JUDGED_SETS}
        return MarginLine(place, system, margins)
    given = content["replies"]
    _check_counts(given, counts)
    replies = {name: tuple(_decode_reply(name, one) for one in given[name]) for name in counts}
    return ReplyLine(place, system, replies)


def _check_counts(given: Mapping[str, Sequence[Any]], counts: Mapping[SetName, int]) -> None:
    if {name: len(one) for name, one in given.items()} != counts:
        raise ValueError("it has other requests than the first line states")


def _decode_reply(name: SetName, content: Sequence[Any]) -> Reply:
    text, outcome, coherent = content
    if type(text) is not str or type(coherent) is not bool or outcome not in OUTCOMES[name]:
        raise ValueError("a reply is no text, outcome, and true or false")
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
