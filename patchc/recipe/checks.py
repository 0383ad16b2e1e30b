"""Checks of single parameters, shared by the recipes of all methods."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from patchc.errors import UsageError


def number(name: str, value: object) -> float:
    """``value`` as a float.

    Raises:
        UsageError: it is not a number (a truth value is none).
    """
    if isinstance(value, str):
        raise UsageError(
            f"{name} is the text {value!r}; it must be a number (YAML takes 1e1 for a text and "
            "1.0e+1 for a number)"
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} is {value!r}; it must be a number")
    try:
        return float(value)
    except OverflowError as error:
        raise UsageError(f"{name} is too large for a number") from error


def share(name: str, value: object) -> float:
    """``value`` as a float in [0, 1].

    Raises:
        UsageError: it is not a number, or lies outside.
    """
    checked = number(name, value)
    if not 0.0 <= checked <= 1.0:
        raise UsageError(f"{name} is {checked}; it must lie between 0 and 1")
    return checked


def scale(name: str, value: object) -> float:
    """``value`` as a float that is finite in fp32.

    Raises:
        UsageError: it is not a number, or not finite in fp32.
    """
    checked = number(name, value)
    if not math.isfinite(checked) or abs(checked) > 3.4e38:
        raise UsageError(f"{name} is {checked}; it must be a finite fp32 number")
    return checked


def seed(value: object) -> int:
    """``value`` as a 64-bit seed.

    Raises:
        UsageError: it is not a whole number in [0, 2**64).
    """
    if type(value) is not int or not 0 <= value < 2**64:
        raise UsageError(f"seed is {value!r}; it must be a whole number below 2**64")
    return value


def count(name: str, value: object) -> None:
    """Check that ``value`` is a whole number of at least 1.

    Raises:
        UsageError: it is not.
    """
    if type(value) is not int or value < 1:
        raise UsageError(f"{name} is {value!r}; it must be a whole number of at least 1")


def expressions(name: str, value: object) -> tuple[str, ...]:
    """``value`` as a tuple of texts.

    Raises:
        UsageError: it is not a list of texts.
    """
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise UsageError(f"{name} is {value!r}; it must be a list of expressions")
    return tuple(value)


def choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Check that ``value`` is one of ``choices``.

    Raises:
        UsageError: it is not.
    """
    if value not in choices:
        raise UsageError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")


def known_keys(content: Mapping[str, object], known: Sequence[str]) -> None:
    """Check that every key is known.

    Raises:
        UsageError: one is not.
    """
    for key in content:
        if key not in known:
            raise UsageError(f"unknown key {key!r}; known are {', '.join(known)}")
