"""Regular expressions over tensor names, in time and memory that no expression can make run away.

They are RE2's: :mod:`re` tries one way after another through an expression, and ``(a+)+$`` takes it
hours for forty letters. RE2 takes time in proportion to expression and name, and has no look-around
and no references to groups, which need more.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import re2

from patchc.errors import UsageError
from patchc.json_values import has_half_character

MOST_LETTERS = 1 << 16
"""Letters of an expression; one that lists the names of a thousand tensors has as many."""

_SHOWN = 80
_NO_REPETITION = re.compile(r"(?<!\\)\{(,\d+|\d*,?\d{6,}|\d{6,},\d*)\}")


class Expression:
    """A regular expression in RE2's syntax, searched for anywhere in a name.

    Args:
        text: the expression.

    Raises:
        UsageError: it is malformed or too large, or has a part that RE2 does not have.
    """

    def __init__(self, text: str) -> None:
        self._compiled = compile_expression(text, never_capture=True)

    def matches(self, name: str) -> bool:
        """Whether it matches anywhere in a name."""
        return self._compiled.search(name) is not None


@lru_cache(1 << 14)
def expression(text: str) -> Expression:
    """Return the expression of a text, made once.

    Raises:
        UsageError: as :class:`Expression`.
    """
    return Expression(text)


def compile_expression(text: str, most_letters: int = MOST_LETTERS, **options: Any) -> Any:
    """Compile an expression to one of RE2's, with those of its options.

    Raises:
        UsageError: as :class:`Expression`.
    """
    shown = f"{text[:_SHOWN]!r}{'…' if len(text) > _SHOWN else ''}"
    if has_half_character(text):
        raise UsageError(f"{shown} holds half a character (a lone surrogate)")
    if len(text) > most_letters:
        raise UsageError(f"{shown} has more than {most_letters:,} letters; write less")
    if _NO_REPETITION.search(text):
        # A text for RE2, and for many another engine a repetition.
        raise UsageError(
            f"{shown} is not a regular expression of RE2; write a repetition as {{2}}, {{0,2}} "
            "or {2,}, of at most 1,000"
        )
    chosen = re2.Options()
    chosen.log_errors = False
    for name, value in options.items():
        setattr(chosen, name, value)
    try:
        return re2.compile(text, chosen)
    except re2.error as error:
        raise UsageError(
            f"{shown} is not a regular expression of RE2 ({_reason(error)}); look-around and "
            "references to groups are not among them"
        ) from error


def _reason(error: re2.error) -> str:
    told = error.args[0] if error.args else error
    text = told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)
    return f"{text[:_SHOWN]}{'…' if len(text) > _SHOWN else ''}"
