"""What is in a model's folder: all its files, those in folders below too."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from patchc.errors import CheckpointError
from patchc.system_errors import reason

_MOST_LEVELS = 64
"""Folders within each other, that of the model counted."""


def files_below(folder: Path, levels: int = _MOST_LEVELS) -> Iterator[Path]:
    """Walk through a folder in the order of names; hidden folders are passed over.

    Links to folders are yielded, and not followed.

    Raises:
        CheckpointError: something cannot be looked at, or folders are nested too deep.
    """
    if not levels:
        raise CheckpointError(
            f"{str(folder)[:80]}…: more than {_MOST_LEVELS} folders within each other; move them "
            "elsewhere"
        )
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot list: {reason(error)}") from error
    for path in found:
        if not leads_to_folder(path) or path.is_symlink():
            yield path
        elif not path.name.startswith("."):
            yield from files_below(path, levels - 1)


def leads_to_folder(path: Path) -> bool:
    """Whether a path is a folder or a link to one; an error is not taken for no folder."""
    try:
        if path.is_symlink():
            return os.path.isdir(path)  # noqa: PTH112 (it may lead nowhere, or in a circle)
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot look at it: {reason(error)}") from error
