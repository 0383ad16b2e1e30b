"""Reads JSON that a stranger may have written: plain values alone, each with one meaning."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

from patchc.json_values import has_half_character

MOST_NESTED = 64
"""Objects and arrays within each other, the outermost counted."""

UNFIT = (
    ValueError, LookupError, TypeError, AttributeError, ZeroDivisionError, OverflowError,
    RecursionError,
)  # fmt: skip
"""What it may raise to take a value of JSON for something that it is not."""

_SMALLEST, _LARGEST = -(1 << 63), (1 << 64) - 1
_MOST_DIGITS = 20
_SHOWN = 40


def why_unfit(error: Exception) -> str:
    """Say in a message what is wrong with a value, from one of :data:`UNFIT`."""
    missing = isinstance(error, KeyError)
    return f"{error.args[0]!s:.40} is missing" if missing else f"{error!s:.200}"


def has_more_values(text: bytes, containers: int, commas: int) -> bool:
    """Whether a text may hold more values than so many; they are counted before any is made.

    Args:
        text: JSON.
        containers: opening brackets and braces that it may have, wherever they stand.
        commas: commas that it may have.
    """
    return text.count(b"{") + text.count(b"[") > containers or text.count(b",") > commas


def parse_json(
    text: bytes | str,
    convert: Callable[[dict[str, Any]], Any] = lambda found: found,
    *,
    any_number: bool = False,
) -> Any:
    """Read one JSON value.

    Refused beside what is not JSON: ``NaN`` and ``Infinity``, numbers that neither 64 bits nor a
    finite fp64 number hold, a key that an object gives twice, more than :data:`MOST_NESTED` objects
    and arrays within each other, and half a character (a lone surrogate).

    Memory is in proportion to the text, up to some 50 times its size; callers limit the size.

    Args:
        text: the text.
        convert: makes of each object what takes its place, the innermost first, so that many equal
            ones need not stay. Only objects and arrays that stay are checked for their depth.
        any_number: takes ``NaN``, ``Infinity`` and numbers of any size, which are in models'
            configurations. They are those of Python.

    Raises:
        ValueError: any of these; says which, on one line.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode()
        value = json.loads(
            text,
            parse_constant=None if any_number else _refuse_constant,
            parse_float=None if any_number else _finite_number,
            parse_int=None if any_number else _number_of_64_bits,
            object_pairs_hook=lambda pairs: convert(_object(pairs)),
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text (byte {error.start})") from error
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    _check_nesting(value)
    if "\\u" in text and any(map(has_half_character, _texts(value))):
        raise ValueError("it holds half a character (a lone surrogate)")
    return value


_TOO_DEEP = f"it is nested more than {MOST_NESTED} deep"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:_SHOWN]} is beyond every number")
    return number


def _number_of_64_bits(text: str) -> int | float:
    if text == "-0":
        return -0.0  # as other readers take it, for whom it is no integer
    if len(text.lstrip("-")) > _MOST_DIGITS or not _SMALLEST <= int(text) <= _LARGEST:
        raise ValueError(f"{text[:_SHOWN]} takes more than 64 bits")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:_SHOWN]!r} is given twice")
    return found


def _check_nesting(value: Any) -> None:
    level: list[Any] = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_NESTED):
        inner = (one.values() if isinstance(one, dict) else one for one in level)
        level = [held for values in inner for held in values if isinstance(held, dict | list)]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _texts(value: Any) -> list[str]:
    """All texts of a value, keys too; the value is nested no deeper than is allowed."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for one in pair for text in _texts(one)]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return []
