"""Stands between a process and the operating system, at every call that touches its own files.

A matrix decides what happens at a call: it goes on, fails, does half of its work, or is the last
one of the process. Files that Python opens are read and written by the pure-Python twin of ``io``,
so that they come by here too, and so do the calls that are made of the C library directly.
"""

from __future__ import annotations

import _pyio
import builtins
import ctypes
import fcntl
import io
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = {
    **dict.fromkeys(("pread", "preadv", "read", "readinto"), "read"),
    **dict.fromkeys(("pwrite", "pwritev", "write", "sendfile", "copy_file_range"), "write"),
    **dict.fromkeys(("fsync", "fdatasync"), "sync"),
    **dict.fromkeys(("rename", "replace", "link", "symlink", "renameat2"), "rename"),
    **dict.fromkeys(("unlink", "remove", "rmdir"), "remove"),
    **dict.fromkeys(("truncate", "ftruncate", "posix_fallocate"), "resize"),
    **dict.fromkeys(("chmod", "fchmod"), "chmod"),
    **dict.fromkeys(("stat", "lstat", "fstat", "statvfs", "readlink"), "look"),
    **dict.fromkeys(("scandir", "listdir"), "list"),
    **{name: name for name in ("open", "close", "mkdir", "flock", "inotify_add_watch")},
}
"""Function → kind of call."""

CHANGING = {"write", "sync", "rename", "remove", "resize", "chmod", "mkdir", "create"}
"""Kinds of calls after which a disk is another one; "create" is an open that may make a file."""

_C_PATHS = {"renameat2": 3, "inotify_add_watch": 1}  # which argument is the path
_open, _readlink, _fsdecode = os.open, os.readlink, os.fsdecode


@dataclass(frozen=True)
class Call:
    """One call, before it is made.

    Attributes:
        name: of the function.
        kind: what it does.
        number: the how-manieth of its kind, from 0.
        path: the file that it touches.
        has_path: whether it was called with a path, which its error then names.
    """

    name: str
    kind: str
    number: int
    path: str
    has_path: bool
    _function: Callable[..., Any]
    _arguments: tuple[Any, ...]
    _options: dict[str, Any]

    def go(self) -> Any:
        """Make the call."""
        return self._function(*self._arguments, **self._options)

    def half(self) -> Any:
        """Make it with the first half of its bytes, and at least one; others in full."""
        first, *rest = self._arguments
        if self.kind not in ("read", "write") or not rest:
            return self.go()
        if isinstance(rest[0], list):
            rest[0] = [_half(rest[0][0])]
        else:
            rest[0] = _half(rest[0])
        return self._function(first, *rest, **self._options)


Act = Callable[[Call], Any]
"""Decides what comes of a call; returns what the call returns."""


def watch_calls(homes: Iterable[Path], act: Act) -> Callable[[], None]:
    """From now on, let ``act`` decide at each call that touches a file below one of the homes.

    Returns:
        What ends it.
    """
    between = _Between(tuple(os.path.realpath(home) for home in homes), act)
    library = ctypes.CDLL
    replaced: dict[tuple[Any, str], Any] = {
        (os, name): between.wrapped(name, getattr(os, name)) for name in KINDS if hasattr(os, name)
    }
    replaced[fcntl, "flock"] = between.wrapped("flock", fcntl.flock)
    replaced[ctypes, "CDLL"] = lambda *arguments, **options: _Library(
        library(*arguments, **options), between
    )
    replaced[io, "open"] = replaced[builtins, "open"] = _pyio.open
    before = {(module, name): getattr(module, name) for module, name in replaced}

    def put(functions: dict[tuple[Any, str], Any]) -> None:
        for (module, name), function in functions.items():
            setattr(module, name, function)

    put(replaced)
    return lambda: put(before)


class _Between:
    def __init__(self, homes: tuple[str, ...], act: Act) -> None:
        self._homes = homes
        self._act = act
        self._numbers: Counter[str] = Counter()
        self._lock = threading.Lock()

    def wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with a decision before each call that touches own files."""

        def call(*arguments: Any, **options: Any) -> Any:
            place = arguments[_C_PATHS.get(name, 0)] if arguments else os.curdir
            path = _path_of(place, options.get("dir_fd"))
            if not path.startswith(self._homes):
                return function(*arguments, **options)
            kind = _kind_of(name, arguments)
            with self._lock:
                number = self._numbers[kind]
                self._numbers[kind] += 1
            has_path = not isinstance(place, int)
            made = Call(name, kind, number, path, has_path, function, arguments, options)
            return self._act(made)

        return call


class _Library:
    """A C library whose calls on own files come by here too; an error becomes its errno."""

    def __init__(self, library: Any, between: _Between) -> None:
        self._library = library
        self._between = between

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._library, name)
        if name not in _C_PATHS:
            return function
        wrapped = self._between.wrapped(name, function)

        def call(*arguments: Any) -> int:
            try:
                return int(wrapped(*arguments))
            except OSError as error:
                ctypes.set_errno(error.errno or 0)
                return -1

        return call


def _kind_of(name: str, arguments: tuple[Any, ...]) -> str:
    if name == "open" and len(arguments) > 1 and arguments[1] & os.O_CREAT:
        return "create"
    return KINDS[name]


def _path_of(place: Any, folder: int | None) -> str:
    if hasattr(place, "fileno"):
        place = place.fileno()
    if isinstance(place, int):
        try:
            return _readlink(f"/proc/self/fd/{place}").removesuffix(" (deleted)")
        except OSError:
            return ""
    around = Path.cwd() if folder is None else Path(_path_of(folder, None))
    return str(around / _fsdecode(place))


def _half(data: Any) -> Any:
    if isinstance(data, int):  # how much to read
        return max(1, data // 2)
    view = memoryview(data).cast("B")
    return view[: max(1, len(view) // 2)]
