"""Moves the entries of a folder up into the folder around it: all of them or none.

For outputs that no rename can replace as a whole. The list of the entries is on disk before the
first of them is moved, so that what a killed process had moved can be told and removed. The entry
that makes a model loadable is the last. Once it is moved, the output is complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from patchc.durability import sync, sync_path
from patchc.regular_file import read_regular
from patchc.renaming import discard, remove, rename_new
from patchc.strict_json import parse_json
from patchc.system_errors import storage_errors

LIST, STAGED = ".moves", ".partial"
"""Suffixes of the list and of the folder that is emptied; the two have one stem."""

_LOADABLE = ("model.safetensors", "model.safetensors.index.json")

_MOST_BYTES = 16 << 20

_Identity = list[int]


def move_up(staging: Path) -> None:
    """Move all entries of a folder into its parent, durably, and remove the folder.

    Raises:
        OutputError: an entry's name is not free.
        StorageError: the operating system refused. What was moved is removed in either case, and
            the list with it.
    """
    record, out = staging.with_suffix(LIST), staging.parent
    entries = {name: _identity(staging / name) for name in _in_order(_names_in(staging))}
    try:
        with storage_errors(out, "write"):
            _write(record, entries)
            for name in entries:
                rename_new(staging / name, out / name)
            sync_path(out)
    except BaseException as error:
        for path in (*_moved(record, entries), record):
            discard(path, error)
        raise
    for done in (record, staging):
        with suppress(OSError):  # what stays is no part of the output; the next run removes it
            remove(done)


def unfinished(record: Path) -> list[Path]:
    """What a killed process had moved by its list; nothing where it had moved everything."""
    entries = _read(record)
    if all(name not in _names_in(record.with_suffix(STAGED)) for name in entries):
        return []
    return _moved(record, entries)


def _moved(record: Path, entries: dict[str, _Identity]) -> list[Path]:
    """The entries that were moved, the last one first; not what others put in their place."""
    left = _names_in(record.with_suffix(STAGED))
    return [
        record.parent / name
        for name in reversed(entries)
        if name not in left and _identity(record.parent / name) == entries[name]
    ]


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (name in _LOADABLE and _LOADABLE.index(name) + 1, name))


def _identity(path: Path) -> _Identity:
    """What a rename keeps of a file, and a replacement does not; nothing where there is none."""
    with suppress(FileNotFoundError):
        state = path.lstat()
        return [state.st_ino, state.st_mtime_ns]
    return []


def _names_in(folder: Path) -> set[str]:
    with suppress(FileNotFoundError):
        return {path.name for path in folder.iterdir()}
    return set()


def _write(record: Path, entries: dict[str, _Identity]) -> None:
    with record.open("x", encoding="utf-8") as file:
        json.dump(entries, file)
        file.flush()
        sync(file.fileno())
    sync_path(record.parent)


def _read(record: Path) -> dict[str, _Identity]:
    """The list; none where it is cut short, since then no entry was moved.

    A list of anything but entries beside it is none of ours.
    """
    with suppress(OSError, ValueError):
        entries = parse_json(read_regular(record, _MOST_BYTES))
        if isinstance(entries, dict) and all(map(_is_entry, entries)):
            return entries
    return {}


def _is_entry(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name
