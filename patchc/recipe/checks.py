"""Checks of single parameters, shared by recipes and other options.

Each takes the name of a parameter and a value, and returns the value, converted where needed. Each
raises :class:`~patchc.errors.UsageError` for any other value; the message names the parameter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from patchc.errors import UsageError
from patchc.json_values import has_half_character
from patchc.recipe.expressions import expression

_MOST_SHOWN = 80


def number(name: str, value: object) -> float:
    """Check a number; a truth value does not count as one."""
    if isinstance(value, str):
        raise UsageError(
            f"{name} is the text {brief(value)}; it must be a number (YAML takes 1e1 for a text "
            "and 1.0e+1 for a number)"
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} is {brief(value)}; it must be a number")
    try:
        return float(value)
    except OverflowError as error:
        raise UsageError(f"{name} is too large for a number") from error


def positive(name: str, value: object, or_zero: bool = False) -> float:
    """Check a finite number above 0, or with ``or_zero`` at least 0."""
    checked = number(name, value)
    if not math.isfinite(checked) or checked < 0 or (checked == 0 and not or_zero):
        bound = ", at least 0" if or_zero else " above 0"
        raise UsageError(f"{name} is {brief(value)}; it must be a finite number{bound}")
    return checked


def share(name: str, value: object) -> float:
    """Check a number in [0, 1]."""
    checked = number(name, value)
    if not 0.0 <= checked <= 1.0:
        percent = f", and {checked:g} % is {checked / 100:g}" if 1 < checked <= 100 else ""
        raise UsageError(f"{name} is {checked}; it must lie between 0 and 1{percent}")
    return checked


def scale(name: str, value: object) -> float:
    """Check a number that is finite in fp32."""
    checked = number(name, value)
    if not math.isfinite(checked) or abs(checked) > 3.4e38:
        raise UsageError(f"{name} is {checked}; it must be a finite fp32 number")
    return checked


def seed(name: str, value: object) -> int:
    """Check a whole number in [0, 2**64)."""
    if type(value) is not int or not 0 <= value < 2**64:
        raise UsageError(f"{name} is {brief(value)}; it must be a whole number below 2**64")
    return value


def count(name: str, value: object, below: float = math.inf) -> int:
    """Check a whole number of at least 1, and below ``below``."""
    if type(value) is not int or not 1 <= value < below:
        most = "" if below == math.inf else f" and below {below:,}"
        raise UsageError(f"{name} is {brief(value)}; it must be a whole number of at least 1{most}")
    return value


def truth(name: str, value: object) -> bool:
    """Check a truth value."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} is {brief(value)}; it must be true or false")
    return value


def expressions(name: str, value: object) -> tuple[str, ...]:
    """Check a list of regular expressions."""
    for text in texts(name, value):
        try:
            expression(text)
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from error
    return texts(name, value)


def texts(name: str, value: object) -> tuple[str, ...]:
    """Check a list of texts."""
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise UsageError(f"{name} is {brief(value)}; it must be a list of texts")
    return tuple(value)


def text(name: str, value: object) -> str:
    """Check a text that is not empty and that a file can hold."""
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{name}: {brief(value)} must be a text that is not empty")
    if has_half_character(value):
        raise UsageError(f"{name}: {brief(value)} holds half a character (a lone surrogate)")
    return value


def choice(name: str, value: object, choices: Sequence[str]) -> object:
    """Check one of ``choices``."""
    if value not in choices:
        raise UsageError(f"{name} is {brief(value)}; it must be one of {', '.join(choices)}")
    return value


def known_keys(content: Mapping[str, object], known: Sequence[str]) -> None:
    """Check that every key of a table is known."""
    for key in content:
        if key not in known:
            # In ASCII, since a key of another alphabet may look like one that is known.
            raise UsageError(f"unknown key {key!a:.80}; known are {', '.join(known)}")


def brief(value: object) -> str:
    """Write a value as Python does, cut where it is long."""
    try:
        text = repr(value[:_MOST_SHOWN]) if isinstance(value, str) else repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of very many digits"
    is_cut = len(text) > _MOST_SHOWN or (isinstance(value, str) and len(value) > _MOST_SHOWN)
    return f"{text[:_MOST_SHOWN]}…" if is_cut else text
