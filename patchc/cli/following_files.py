"""Options that take the files after them, as shells complete them: ``--turns a b c``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

SEVERAL = "FILE..."
"""The metavar of such an option."""


def repeat_options(words: Sequence[str], parameters: Iterable[Any]) -> list[str]:
    """Write ``--turns a b c`` as ``--turns a --turns b --turns c``.

    The first word after the option is its value, whatever it is. Those after it are values while
    they are files and do not begin with "-". What follows ``--`` is left alone, and so are the
    values of other options.

    Args:
        words: of the command line.
        parameters: of the command.
    """
    options = [one for one in parameters if one.param_type_name == "option" and not one.is_flag]
    valued = {name for one in options for name in one.opts}
    several = {name for one in options if one.metavar == SEVERAL for name in one.opts}
    found: list[str] = []
    left = [*words]
    while left:
        word = left.pop(0)
        found.append(word)
        if word == "--":
            break
        if word in valued and left:
            found.append(left.pop(0))
        name = word.partition("=")[0]
        while name in several and left and not left[0].startswith("-") and Path(left[0]).is_file():
            found += [name, left.pop(0)]
    return found + left
