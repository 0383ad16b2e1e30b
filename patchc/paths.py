"""Paths as callers give them: text or path objects, one or several."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

PathLike = str | os.PathLike[str]


def listed(paths: PathLike | Iterable[PathLike]) -> list[Path]:
    """The given paths; one that is given alone is a list of one, not of its characters."""
    if isinstance(paths, str | os.PathLike):
        return [Path(paths)]
    return [Path(one) for one in paths]
