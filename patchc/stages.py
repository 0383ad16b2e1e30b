"""Stages of work whose results stay on disk: one is made again only when its inputs have changed.

A stage is a folder that appears whole or not at all, with the stamp ``stage.json`` in it: the
inputs it was made from, and the seconds that took. One process at a time works on a stage.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

from patchc.durability import sync_path
from patchc.errors import OutputError
from patchc.files import staged_folder
from patchc.regular_file import open_regular, read_regular
from patchc.reserved import clear_leftovers
from patchc.strict_json import parse_json
from patchc.system_errors import storage_errors

_STAMP = "stage.json"
_MOST_BYTES = 4 << 20


class Stages:
    """The stages of one piece of work, each a subfolder of ``work`` under its name.

    Inputs are values of JSON, and equal where their JSON is; files are named by
    :func:`file_digest`.
    """

    def __init__(self, work: Path) -> None:
        self._work = work

    def run(self, name: str, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """The folder of a stage: as it is where ``inputs`` made it, otherwise filled by ``make``.

        ``make`` gets an empty folder under another name. Once it has returned and all is on disk,
        the folder takes the stage's name, and replaces a stage that other inputs made. If ``make``
        raises or the process is killed, everything is as before.

        Raises:
            OutputError: something that is no stage has the stage's name; it is left alone.
            InUseError: another process makes the stage.
            StorageError: the operating system refused, in ``make`` too.
        """
        folder = self._work / name
        if not self.done(name, inputs):
            _make(folder, inputs, make)
        else:
            clear_leftovers(folder)  # of a run that was killed when the stage was just done
        return folder

    def done(self, name: str, inputs: Mapping[str, Any]) -> bool:
        """Whether :meth:`run` would leave the stage as it is.

        Raises:
            StorageError: the stamp cannot be read.
        """
        return _is_made(self._work / name, inputs)

    def seconds(self, name: str) -> float | None:
        """How long the present stage took, whatever its inputs; None where there is none.

        Raises:
            StorageError: the stamp cannot be read.
        """
        stamp = _read_stamp(self._work / name)
        return None if stamp is None else float(stamp["seconds"])


def file_digest(path: Path) -> str:
    """BLAKE3 of a file's content, as 64 hexadecimal digits.

    Raises:
        StorageError: the file cannot be read.
    """
    with storage_errors(path, "read"), os.fdopen(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, blake3).hexdigest()  # type: ignore[arg-type]


def file_digests(folder: Path, names: Iterable[Path]) -> dict[str, str]:
    """The :func:`file_digest` of some files below a folder, by name, in alphabetical order.

    Raises:
        StorageError: a file cannot be read.
    """
    return {str(name): file_digest(folder / name) for name in sorted(names)}


def _is_made(folder: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether the folder holds the stamp of these inputs."""
    stamp = _read_stamp(folder)
    return stamp is not None and _canonical(stamp["inputs"]) == _canonical(dict(inputs))


def _read_stamp(folder: Path) -> dict[str, Any] | None:
    """The stamp of a folder; None where there is none, or something else under its name."""
    path = folder / _STAMP
    with storage_errors(path, "read"):
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return None
        content = read_regular(path, _MOST_BYTES)
    try:
        stamp = parse_json(content)
    except ValueError:
        return None
    if not isinstance(stamp, dict) or stamp.keys() != {"inputs", "seconds"}:
        return None
    return stamp if isinstance(stamp["seconds"], float) else None


def _canonical(value: Any) -> str:
    return json.dumps(json.loads(json.dumps(value)), sort_keys=True)


def _make(folder: Path, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> None:
    wanted = json.loads(_canonical(dict(inputs)))
    _check_own(folder)
    with staged_folder(folder, replace=True) as staging:
        start = time.perf_counter()
        make(staging)
        stamp = {"inputs": wanted, "seconds": time.perf_counter() - start}
        (staging / _STAMP).write_text(json.dumps(stamp), encoding="utf-8")
        for path in staging.rglob("*"):
            if path.is_file() and not path.is_symlink():
                sync_path(path)
        _check_own(folder)


def _check_own(folder: Path) -> None:
    with storage_errors(folder, "reach"):
        if not folder.exists() or (folder / _STAMP).exists():
            return
        if not folder.is_dir() or any(folder.iterdir()):
            raise OutputError(
                f"{folder} is in the way: it holds no {_STAMP}, so no stage made it; move it away "
                "or choose another folder to work in"
            )
