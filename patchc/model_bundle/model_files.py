"""The files of a model that a bundle signs: all of them, except what git keeps at the top."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchc.errors import CheckpointError, UnsupportedInputError, unreadable
from patchc.system_errors import reason

OF_GIT = (".git", ".github", ".gitattributes", ".gitignore")
"""What model signing leaves out, unless it is told otherwise."""

WHOLE = "."
"""The name of a model that is one file."""


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model.

    Attributes:
        signed: the paths of files, relative to the model's folder with ``/`` between, sorted.
        left_out: entries of the folder that model signing leaves out, sorted.
    """

    signed: tuple[str, ...]
    left_out: tuple[str, ...]


def path_of(model: Path, name: str) -> Path:
    """The path of a file by its name in a bundle."""
    return model if name == WHOLE else model / name


def list_files(model: Path, follow_links: bool) -> ModelFiles:
    """List what is in a model's folder, or the file that it is; nothing is opened.

    Raises:
        CheckpointError: the model is not there, or cannot be read.
        UnsupportedInputError: something is no file: a link, a pipe, a device; or a name is not
            UTF-8.
    """
    try:
        if not model.is_dir():
            _check(model, model.lstat(), follow_links)
            return ModelFiles((WHOLE,), ())
        names = {path.name for path in model.iterdir()}
        left_out = tuple(name for name in OF_GIT if name in names)
        return ModelFiles(tuple(sorted(_below(model, follow_links))), left_out)
    except OSError as error:
        place = error.filename or model
        message = f"{place}: cannot read: {reason(error)}"
        raise unreadable(CheckpointError, message, error) from error


def _below(model: Path, follow_links: bool) -> Iterator[str]:
    folders = [model]
    while folders:
        folder = folders.pop()
        for path in folder.iterdir():
            if folder == model and path.name in OF_GIT:
                continue
            state = path.lstat()
            if stat.S_ISDIR(state.st_mode):
                folders.append(path)
                continue
            _check(path, state, follow_links)
            yield path.relative_to(model).as_posix()


def _check(path: Path, state: os.stat_result, follow_links: bool) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UnsupportedInputError(
            f"{path}: its name is not UTF-8, as a bundle needs it; rename it"
        ) from error
    if stat.S_ISLNK(state.st_mode):
        if not follow_links:
            raise UnsupportedInputError(
                f"{path} is a link; with --follow-links, what it leads to is signed and checked"
            )
        state = path.stat()
        if stat.S_ISDIR(state.st_mode):
            raise UnsupportedInputError(
                f"{path} is a link to a folder, whose files no bundle would hold; copy it instead"
            )
    if not stat.S_ISREG(state.st_mode):
        raise UnsupportedInputError(f"{path} is not a file; remove it")
