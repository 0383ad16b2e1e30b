"""Paths as callers give them: text or path objects, one or several."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from patchc.errors import UsageError

PathLike = str | os.PathLike[str]

EMPTY = "a path is empty; name the file or the folder, or `.` for this one"
"""What is wrong with an empty text, which would stand for the working folder."""


def check_named(path: PathLike, what: str = "") -> None:
    """Refuse an empty text for a path, such as a variable that is not set gives.

    Args:
        path: what was given. A ``Path`` is never empty: of an empty text it makes ``.``.
        what: names it in the message.

    Raises:
        UsageError: it is empty.
    """
    if not os.fspath(path):
        raise UsageError(f"{what}: {EMPTY}" if what else EMPTY)


def listed(paths: PathLike | Iterable[PathLike]) -> list[Path]:
    """The given paths; one that is given alone is a list of one, not of its characters.

    Raises:
        UsageError: a path is an empty text, which would stand for the working folder.
    """
    found = [paths] if isinstance(paths, str | os.PathLike) else [*paths]
    if "" in found:
        raise UsageError(EMPTY)
    return [Path(one) for one in found]
