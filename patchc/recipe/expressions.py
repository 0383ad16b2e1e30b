"""Regular expressions over tensor names, in time that no expression can make run away.

:mod:`re` tries one way after another through an expression, and there may be more of them than
anybody can wait for: ``(a+)+$`` takes hours for forty letters. Here all ways are walked together:
the places of a name that they have come to are the bits of one number, so that ways that meet are
one. What matches is what :mod:`re` finds. It parses the expression, and tells which single
characters and borders match. Left out is what depends on the way that was taken: references to
groups, atomic groups and possessive repetition.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache
from re import _compiler, _parser  # type: ignore[attr-defined]
from typing import Any

from patchc.errors import UsageError

MOST_LETTERS = 1 << 16
"""Letters of an expression; one that lists the names of a thousand tensors has as many."""

_MOST_STEPS = 100_000
"""Steps of one match, each with all places of up to 1,024 letters; usual ones take a hundred."""

_LETTERS_OF_STEP = 1024
_MOST_WAYS = 1000
_MANY_WAYS = 1 << 30
_WIDEST_RANGE = 1024
_SHOWN = 80

_REFUSED = {
    "GROUPREF": "a reference to a group",
    "GROUPREF_EXISTS": "a condition on a group",
    "ATOMIC_GROUP": "an atomic group",
    "POSSESSIVE_REPEAT": "possessive repetition",
}

_Walk = Callable[["_Name", int], int]
"""Takes a name and places to start from; returns the places where a part of the expression can end.
Place ``n`` is the one before letter ``n``, and is bit ``n``."""


class Expression:
    """A regular expression, with the semantics of :func:`re.search`.

    Args:
        text: the expression.

    Raises:
        UsageError: it is malformed, too long, or has one of the parts that are left out.
    """

    def __init__(self, text: str) -> None:
        self._shown = f"{text[:_SHOWN]!r}{'…' if len(text) > _SHOWN else ''}"
        if len(text) > MOST_LETTERS:
            raise UsageError(f"{self._shown} has more than {MOST_LETTERS:,} letters; write less")
        try:
            parsed = _parsed(text)
            self._walk = _sequence(parsed, parsed.state.flags)
            self._plain = re.compile(text) if _ways(parsed) <= _MOST_WAYS else None
        except (re.error, OverflowError, RecursionError, ValueError) as error:
            raise UsageError(f"{self._shown} is not a regular expression ({error})") from error

    def matches(self, name: str) -> bool:
        """Whether it matches anywhere in a name.

        Raises:
            UsageError: that takes too many steps.
        """
        if self._plain:
            return self._plain.search(name) is not None
        try:
            return self._walk(_Name(name), (2 << len(name)) - 1) != 0
        except (_TooManyStepsError, RecursionError) as error:
            raise UsageError(
                f"{self._shown} takes too long to match {name[:_SHOWN]!r}; write a simpler one"
            ) from error


@lru_cache(1 << 14)
def expression(text: str) -> Expression:
    """Return the expression of a text, made once.

    Raises:
        UsageError: as :class:`Expression`.
    """
    return Expression(text)


def _parsed(text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        try:
            return _parser.parse(text)
        except FutureWarning as warning:
            message = f"{warning}, which later versions of Python may read otherwise: escape it"
            raise ValueError(message) from warning


class _TooManyStepsError(Exception):
    pass


class _Name:
    """A name that is matched, and the steps that are left for it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found = _places(text)
        self._cost = 1 + len(text) // _LETTERS_OF_STEP
        self._steps = _MOST_STEPS

    def places(self, one: re.Pattern[str]) -> int:
        """The places where a single character, or a border, is matched."""
        self._steps -= self._cost
        if self._steps < 0:
            raise _TooManyStepsError
        if one not in self._found:
            bits = bytearray(len(self._text) // 8 + 1)
            for found in one.finditer(self._text):
                bits[found.start() >> 3] |= 1 << (found.start() & 7)
            self._found[one] = int.from_bytes(bits, "little")
        return self._found[one]


@lru_cache(64)
def _places(_name: str) -> dict[re.Pattern[str], int]:
    """What is known of a name; many expressions are matched with each."""
    return {}


def _ways(items: Iterable[tuple[Any, Any]]) -> int:
    """At most how many ways there are through a sequence of parts."""
    ways = 1
    for kind, detail in items:
        if str(kind) == "BRANCH":
            ways *= sum(map(_ways, detail[1]))
        elif str(kind) == "SUBPATTERN":
            ways *= _ways(detail[-1])
        elif str(kind) not in _SINGLE:
            ways = _MANY_WAYS
        ways = min(ways, _MANY_WAYS)
    return ways


_SINGLE = ("LITERAL", "NOT_LITERAL", "IN", "ANY", "AT")


def _sequence(items: Iterable[tuple[Any, Any]], flags: int) -> _Walk:
    walks = [_part(str(kind), kind, detail, flags) for kind, detail in items]

    def walk(name: _Name, places: int) -> int:
        for one in walks:
            if not places:
                break
            places = one(name, places)
        return places

    return walks[0] if len(walks) == 1 else walk


def _part(word: str, kind: Any, detail: Any, flags: int) -> _Walk:
    if word in _SINGLE:
        return _single(word, kind, tuple(detail) if word == "IN" else detail, flags)
    if word == "SUBPATTERN":
        _, added, removed, items = detail
        return _sequence(items, _compiler._combine_flags(flags, added, removed))
    if word == "BRANCH":
        return _branch([_sequence(items, flags) for items in detail[1]])
    if word in ("MAX_REPEAT", "MIN_REPEAT"):
        least, most, items = detail
        return _repeat(least, most, _sequence(items, flags))
    if word in ("ASSERT", "ASSERT_NOT"):
        direction, items = detail
        back, most = items.getwidth() if direction < 0 else (0, 0)
        if back != most:
            raise ValueError("look-behind requires fixed-width pattern")  # as re says
        return _look(_sequence(items, flags), direction < 0, back, wanted=word == "ASSERT")
    if word == "FAILURE":
        return lambda _name, _places: 0
    raise ValueError(f"it has {_REFUSED.get(word, word)}, which is not supported here")


def _single(word: str, kind: Any, detail: Any, flags: int) -> _Walk:
    if word == "IN" and flags & re.IGNORECASE:
        # The compiler looks at every character of a range.
        for inner, limits in detail:
            if str(inner) == "RANGE" and limits[1] - limits[0] > _WIDEST_RANGE:
                raise ValueError(f"a range of more than {_WIDEST_RANGE:,} letters in both cases")
    one = _compiled(kind, detail, flags)
    if word == "AT":
        return lambda name, places: places & name.places(one)
    return lambda name, places: (places & name.places(one)) << 1


@lru_cache(4096)
def _compiled(kind: Any, detail: Any, flags: int) -> re.Pattern[str]:
    state = _parser.State()
    state.flags = flags
    held = list(detail) if isinstance(detail, tuple) else detail
    pattern: re.Pattern[str] = _compiler.compile(_parser.SubPattern(state, [(kind, held)]))
    return pattern


def _branch(walks: list[_Walk]) -> _Walk:
    def walk(name: _Name, places: int) -> int:
        reached = 0
        for one in walks:
            reached |= one(name, places)
        return reached

    return walk


def _repeat(least: int, most: int, body: _Walk) -> _Walk:
    def walk(name: _Name, places: int) -> int:
        for _ in range(least):
            before, places = places, body(name, places)
            if places in (before, 0):
                break
        reached = places
        for _ in range(most - least):
            places = body(name, places) & ~reached
            if not places:
                break
            reached |= places
        return reached

    return walk


def _look(body: _Walk, behind: bool, back: int, wanted: bool) -> _Walk:
    def is_there(name: _Name, place: int) -> bool:
        if behind:
            return bool(place >> back and body(name, place >> back) & place)
        return body(name, place) != 0

    def walk(name: _Name, places: int) -> int:
        found, left = 0, places
        while left:
            place = left & -left
            left ^= place
            if is_there(name, place) == wanted:
                found |= place
        return found

    return walk
