"""Reads files of JSON lines, as data is given in: each line is a JSON object, and has a number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from os import PathLike
from typing import Any

from patchc.errors import PatchcError, unreadable
from patchc.other_kinds import START_BYTES, other_kind
from patchc.regular_file import read_regular
from patchc.strict_json import parse_json
from patchc.system_errors import reason

MOST_BYTES = 1 << 30
"""Bytes of a file of data."""
MOST_LINE_BYTES = 1 << 24
"""Bytes of one of its lines."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SHOWN_NAMES = 20
_SHOWN = 40


def read_data(path: str | PathLike[str], error: type[PatchcError], what: str) -> bytes:
    """Read a file of data whole.

    Raises:
        error: it cannot be read, is no file (a pipe, a folder), has more than :data:`MOST_BYTES`
            bytes, or is no text; where nothing is there, also a FileNotFoundError.
    """
    try:
        content = read_regular(path, MOST_BYTES)
    except OSError as problem:
        raise unreadable(error, f"{path}: {what}: {reason(problem)}", problem) from problem
    if content and (kind := other_kind(content[:START_BYTES])):
        raise error(f"{path}: not JSON lines: it is {kind}")
    if (nul := content.find(b"\0")) >= 0:
        raise error(
            f"{path}:{_line_of(content, nul)}: holds a NUL byte, as UTF-16 text and binary files "
            "do; save it as UTF-8 text"
        )
    return content


def decode(path: str | PathLike[str], content: bytes, error: type[PatchcError]) -> str:
    """Decode UTF-8 text; raises ``error``, naming the line that is none."""
    try:
        return content.decode()
    except UnicodeDecodeError as problem:
        raise error(
            f"{path}:{_line_of(content, problem.start)}: not UTF-8 text; save the file as UTF-8"
        ) from problem


def read_objects(
    path: str | PathLike[str], content: bytes, error: type[PatchcError], form: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the object of each line, with its file and line; one line is held at a time.

    A line ends with a line feed, a carriage return or both. Blank lines are left out, and a byte
    order mark at the start of one is ignored.

    Args:
        path: the file, for messages.
        content: what it holds.
        error: what is raised.
        form: what to do about a line that is no object.

    Raises:
        error: a line is no JSON object, is not plain JSON (see
            :func:`~patchc.strict_json.parse_json`), or has more than :data:`MOST_LINE_BYTES` bytes.
    """
    for number, line in enumerate(content.splitlines(), start=1):
        line, source = line.removeprefix(_BYTE_ORDER_MARK), f"{path}:{number}"
        if line.strip():
            yield source, check_object(source, _parse(source, line, error, form), error, form)


def check_object(source: str, value: Any, error: type[PatchcError], form: str) -> dict[str, Any]:
    """Return a JSON object; raises ``error`` for another value, naming ``source``."""
    if not isinstance(value, dict):
        raise error(f"{source}: not a JSON object but {type(value).__name__}; {form}")
    return value


def name_some(names: Iterable[str]) -> str:
    """Name the first keys of a record for a message, each cut."""
    return ", ".join(name[:_SHOWN] for name in islice(names, _SHOWN_NAMES)) or "nothing"


def _parse(source: str, line: bytes, error: type[PatchcError], form: str) -> Any:
    if len(line) > MOST_LINE_BYTES:
        raise error(f"{source}: the line has more than {MOST_LINE_BYTES:,} bytes; {form}")
    try:
        return parse_json(line.decode())
    except UnicodeDecodeError as problem:
        raise error(f"{source}: not UTF-8 text; save the file as UTF-8") from problem
    except ValueError as problem:
        raise error(f"{source}: not a JSON object ({problem}); {form}") from problem


def _line_of(content: bytes, at: int) -> int:
    return len(content[: at + 1].splitlines())
