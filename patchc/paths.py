"""Paths as callers give them: text or path objects, one or several."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from patchc.errors import UsageError

PathLike = str | os.PathLike[str]


def listed(paths: PathLike | Iterable[PathLike]) -> list[Path]:
    """The given paths; one that is given alone is a list of one, not of its characters.

    Raises:
        UsageError: a path is an empty text, which would stand for the working folder.
    """
    found = [paths] if isinstance(paths, str | os.PathLike) else [*paths]
    if "" in found:
        raise UsageError("a path is empty; name the file or the folder, or `.` for this one")
    return [Path(one) for one in found]
