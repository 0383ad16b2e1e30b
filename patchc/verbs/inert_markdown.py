"""Texts of strangers in Markdown: shown as they are, with no effect on the page around them.

Everything goes into code. There no link, picture, HTML, emphasis or address is recognised, by no
dialect of Markdown, and nothing has to be escaped. A span's fence is longer than any run of
backticks in it, and an indented block has no end that a text could write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from patchc.escaping import shown

_MATH = re.compile(r"(?<=\$)\$|(?<=\\\\)\(")
"""The last character of what opens a formula. The hub sets formulas before it reads Markdown."""


def code(text: str, most: int = 200) -> str:
    """Write a text as a span of code on one line, of at most about ``most`` characters."""
    line = _line(text, most) or '""'
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if "`" in (line[0], line[-1]) or line[0] == line[-1] == " " else ""
    return f"{fence}{space}{line}{space}{fence}"


def code_block(lines: Iterable[str], most_lines: int = 100, most: int = 500) -> str:
    """Write lines as an indented block of code; it may not come right after a list."""
    given = list(lines)
    kept = [_line(line, most) for line in given[:most_lines]]
    if len(given) > len(kept):
        kept.append(f"… {len(given) - len(kept):,} more lines")
    return "\n".join(f"    {line}" for line in kept)


def bullets(lines: Iterable[str], most: int = 20) -> str:
    """Write a list of lines of Markdown, and how many more there are."""
    given = list(lines)
    more = [f"and {len(given) - most:,} more"] if len(given) > most else []
    return "\n".join(f"- {line}" for line in [*given[:most], *more])


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table; its cells are Markdown without bars, so never a stranger's."""
    head = [columns, ["---"] * len(columns)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*head, *rows])


def _line(text: str, most: int) -> str:
    return _MATH.sub(lambda found: f"\\x{ord(found[0]):02x}", shown(text, most))
