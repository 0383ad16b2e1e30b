"""Compares the output that a page shows with the real one."""

from __future__ import annotations

import re

_LOG_LINE = re.compile(r"^patchc: (?!error|warning|interrupted)[a-z-]+: .*\n?", re.MULTILINE)
"""A line that a command writes only where the machine is slow."""
_ANY = "..."
_NUMBER = re.compile(r"(?:[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?|\b[0-9a-f]{7,}\b)")


def matches(shown: str, real: str, *, any_number: bool = False) -> bool:
    """Whether a page shows what was printed.

    ``...`` on a line of its own stands for any lines, within a line for any text. Spaces at the
    ends of lines do not count.

    Args:
        any_number: numbers, and the widths of columns, may differ.
    """
    return _pattern(_tidy(shown), any_number).fullmatch(_tidy(real)) is not None


def _tidy(text: str) -> str:
    lines = [line.rstrip() for line in _LOG_LINE.sub("", text).splitlines()]
    return "".join(f"{line}\n" for line in lines).strip("\n") + "\n"


def _pattern(shown: str, any_number: bool) -> re.Pattern[str]:
    whole = ""
    for line in shown.splitlines():
        if line.strip() == _ANY:
            whole += r"(?:.*\n)*?"
        else:
            whole += ".*?".join(_literal(part, any_number) for part in line.split(_ANY)) + r"\n"
    return re.compile(whole)


def _literal(text: str, any_number: bool) -> str:
    if not any_number:
        return re.escape(text)
    parts = [re.escape(part) for part in _NUMBER.split(text)]
    return re.sub(r"(?:\\ )+", r"\\ *", _NUMBER.pattern.join(parts))
