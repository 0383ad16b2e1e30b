"""Texts that a stranger may have written, on their way to a screen, a picture or a file of lines.

What a terminal acts on or does not show is written out as Python writes it in a string: ``\\x1b``,
``\\u202e``. A reviewer then sees that it is there. Long texts are cut.
"""

from __future__ import annotations

import re
import unicodedata

MOST_IN_MESSAGE = 1800
"""Characters of a message that are shown."""

_MOST_MARKS = 4
"""Marks such as accents on one letter; more of them grow over the lines above and below."""

_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters, marks and symbols that are drawn as nothing, although Unicode calls them graphic."""

_NOT_PLAIN = re.compile(r"[^ -~]")
_CUT_END = 3
"""The end of a text that is cut: one part in so many of what is shown."""


def visible(text: str) -> str:
    """Write out all that a screen would act on or not show, line ends too.

    These are control characters, what changes the direction of text, characters without width,
    blanks other than the space, unassigned ones, halves of characters, and a flood of marks.
    """
    if text.isascii() and text.isprintable():
        return text
    marks, shown = 0, []
    for character in text:
        marks = marks + 1 if _is_mark(character) else 0
        hidden = not character.isprintable() or character in _BLANK or marks > _MOST_MARKS
        shown.append(character.encode("unicode_escape").decode() if hidden else character)
    return "".join(shown)


def cut(text: str, most: int) -> str:
    """Leave out the middle of a text of more than ``most`` characters, and say how much it was."""
    if len(text) <= most:
        return text
    end = most // _CUT_END
    left_out = f" … {len(text) - most:,} characters left out … "
    return text[: most - end] + left_out + text[len(text) - end :]


def shown(text: str, most: int) -> str:
    """Make a text visible and cut it; takes time for what is shown, however long the text is."""
    return cut(visible(cut(text, most)), most)


def visible_json(text: str) -> str:
    """Write out in JSON, as JSON does, the characters that :func:`visible` would.

    What is read from it is the same. Outside its strings JSON has no such characters, except for
    the line ends of an indented text, which stay.
    """
    return _NOT_PLAIN.sub(lambda found: _in_json(found[0]), text)


def _in_json(character: str) -> str:
    if character == "\n" or visible(character) == character:
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Me")
