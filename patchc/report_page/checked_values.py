"""Values of JSON that a stranger may have written, taken only where they are what they should be.

Each function raises ValueError, LookupError, TypeError or OverflowError for another value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from patchc.evaluation.paired import Change
from patchc.evaluation.rates import Rate

Read = TypeVar("Read")

_DIGEST = re.compile("[0-9a-f]{32}|[0-9a-f]{64}")
_MOST_TEXT = 4096
_MOST = 10_000


def text(value: Any) -> str:
    """Take a text."""
    if not isinstance(value, str) or len(value) > _MOST_TEXT:
        raise ValueError(f"a name is no text of at most {_MOST_TEXT:,} characters")
    return value


def digest(value: Any) -> str:
    """Take a digest in hexadecimal."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError("a digest is malformed")
    return value


def count(value: Any) -> int:
    """Take a whole number that is not negative."""
    if type(value) is not int or value < 0:
        raise ValueError("a count is no whole number from 0")
    return value


def number(value: Any) -> float:
    """Take a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a figure is no number")
    return float(value)


def perplexity(value: Any) -> float:
    """Take a perplexity; patchc writes one that is not finite as a text."""
    found = float(value) if value in ("inf", "nan") else number(value)
    if found < 0:
        raise ValueError("a perplexity is negative")
    return found


def share(value: Any) -> float:
    """Take a number from 0 to 1."""
    if not 0 <= (found := number(value)) <= 1:
        raise ValueError("a share is not between 0 and 1")
    return found


def difference(value: Any) -> float:
    """Take a difference of two shares."""
    if not -1 <= (found := number(value)) <= 1:
        raise ValueError("a difference of shares is not between -1 and 1")
    return found


def rate(content: Any) -> Rate:
    """Take a rate by its counts."""
    return Rate(count(content["hits"]), count(content["total"]))


def change(content: Any) -> Change:
    """Take a change of a rate."""
    found, low, high = (difference(content[name]) for name in ("difference", "low", "high"))
    return Change(found, low, high, share(content["p_value"]))


def optional(read: Callable[[Any], Read], content: Any) -> Read | None:
    """Take a value where there is one."""
    return None if content is None else read(content)


def named(read: Callable[[Any], Read], content: Any) -> dict[str, Read]:
    """Take the values of an object."""
    if not isinstance(content, Mapping) or len(content) > _MOST:
        raise ValueError(f"there is no object of at most {_MOST:,} values")
    return {text(name): read(one) for name, one in content.items()}


def listed(read: Callable[[Any], Read], content: Any) -> tuple[Read, ...]:
    """Take the values of a list."""
    if not isinstance(content, list) or len(content) > _MOST:
        raise ValueError(f"there is no list of at most {_MOST:,} values")
    return tuple(read(one) for one in content)
