"""Standard output and error that never stop a command: full, closed or of a narrow encoding."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

from patchc.escaping import visible

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Stream(io.RawIOBase):
    """Writes to a descriptor. The first error is kept, and what follows it is dropped."""

    def __init__(self, descriptor: int, error: OSError | None) -> None:
        self._descriptor = descriptor
        self.error = error
        self.taken = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: ReadableBuffer) -> int:
        size = memoryview(data).nbytes
        if self.error is None:
            try:
                return os.write(self._descriptor, data)
            except OSError as error:
                self.error = error
        return size


class _Problems(io.TextIOWrapper):
    """Standard error, where libraries print too: whatever a terminal would act on is written out.

    A terminal gets colours, of which the messages on wrong options are made.

    Attributes:
        unfiltered: writes to the same place as it is given; for what draws on a terminal.
    """

    unfiltered: io.TextIOWrapper

    def write(self, text: str) -> int:
        parts = _COLOUR.split(text) if self.isatty() else [text]
        lines = (part if n % 2 else _of_others(part) for n, part in enumerate(parts))
        super().write("".join(lines))
        return len(text)


class _Above:
    """What a library draws with and prints above, written to as standard error is."""

    def __init__(self, drawing: TextIO) -> None:
        self._drawing = drawing

    def write(self, text: str) -> int:
        self._drawing.write(_of_others(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._drawing, name)


_COLOUR = re.compile(r"(\x1b\[[0-7;]*m)")


def protect_streams() -> None:
    """Replace standard output and error; characters that they cannot encode are escaped."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        given = getattr(sys, name)
        closed = None if given else OSError(errno.EBADF, "standard output is closed")
        stream = _Stream(descriptor, closed)
        settings: dict[str, Any] = {
            "encoding": given.encoding if given else "utf-8",
            "errors": "backslashreplace",
            "line_buffering": stream.isatty() or name == "stderr",
        }
        kind = _Problems if name == "stderr" else io.TextIOWrapper
        text = kind(io.BufferedWriter(stream), **settings)
        if isinstance(text, _Problems):
            other = io.BufferedWriter(_Stream(descriptor, closed))
            text.unfiltered = io.TextIOWrapper(other, **settings)
        setattr(sys, name, text)


def drawing_stream() -> TextIO:
    """Standard error for what moves the cursor; its user makes the texts of others visible."""
    stream: TextIO = getattr(sys.stderr, "unfiltered", sys.stderr)
    return stream


@contextmanager
def printing_above() -> Iterator[None]:
    """Write out what a terminal would act on, where a drawing library has taken both streams."""
    taken = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", _Above(stream)) for stream in taken)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = taken


def say(text: str, problem: bool = False) -> None:
    """Print a text on standard output, or on standard error if it tells of a problem.

    Whatever a terminal would act on or not show is written out, except for line ends.
    """
    sys.stdout.flush()  # so that both keep their order where they go to one place
    print(_visible_lines(text), file=sys.stderr if problem else sys.stdout)


def _of_others(text: str) -> str:
    """Make visible what a library prints; its tabs and the steps of its bars are no attack."""
    return _visible_lines(text.replace("\r\n", "\n").replace("\r", "\n").expandtabs())


def _visible_lines(text: str) -> str:
    return "\n".join(map(visible, text.split("\n")))


def take_print_error() -> OSError | None:
    """Return what has kept standard output from being printed, once; None where all was.

    A reader that has closed the pipe has all that it wanted.
    """
    sys.stdout.flush()
    stream = _standard_output()
    if stream is None or stream.taken:
        return None
    stream.taken = True
    return stream.error if stream.error and stream.error.errno != errno.EPIPE else None


def drop_output() -> None:
    """Print nothing more on standard output: at an interrupt, its reader may take nothing more."""
    if (stream := _standard_output()) and stream.error is None:
        stream.error = OSError(errno.EPIPE, "interrupted")


def _standard_output() -> _Stream | None:
    stream = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return stream if isinstance(stream, _Stream) else None
