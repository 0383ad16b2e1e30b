"""A file that collects entries, a line each, so that an interrupted run can go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from patchc.errors import EvaluateError
from patchc.files import storage_errors

Entry = TypeVar("Entry")

_NO_ENTRY = (
    ValueError, LookupError, TypeError, AttributeError, ZeroDivisionError, RecursionError,
)  # fmt: skip


class Journal(Generic[Entry]):
    """An open journal: the entries that it held, and what is added to it."""

    def __init__(
        self,
        path: Path,
        file: IO[bytes],
        entries: list[Entry],
        encode: Callable[[Entry], dict[str, Any]],
    ) -> None:
        self.path = path
        self.entries = entries
        self._file = file
        self._encode = encode

    def add(self, entries: Sequence[Entry]) -> None:
        """Append entries; they are with the operating system when this returns.

        Raises:
            StorageError: the operating system refused.
        """
        _append(self.path, self._file, b"".join(_line(self._encode(entry)) for entry in entries))


@contextmanager
def open_journal(
    path: Path,
    kind: str,
    inputs: Any,
    encode: Callable[[Entry], dict[str, Any]],
    decode: Callable[[Any], Entry],
) -> Iterator[Journal[Entry]]:
    """Open a journal, or begin one; its first line states its kind and inputs.

    A last line that was cut short by a kill is dropped. A file that is no such journal is not
    touched.

    Args:
        path: the file.
        kind: what it collects, in a word.
        inputs: what its entries belong to; of JSON values.
        encode: an entry as a JSON object.
        decode: its inverse; ValueError, LookupError, TypeError, AttributeError and
            ZeroDivisionError say that a line is no entry.

    Raises:
        EvaluateError: the file is no such journal, or one of other inputs.
        StorageError: the operating system refused.
    """
    header = _line({"kind": kind, "inputs": inputs})
    with storage_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
    with file:
        with storage_errors(path, "read"):
            file.seek(0)
            content = file.read()
        whole = content.rfind(b"\n") + 1
        if not whole and not header.startswith(content):
            raise _foreign(path, kind, 1)
        first, *lines = content[:whole].split(b"\n")[:-1] or [header[:-1]]
        if first + b"\n" != header:
            raise _other(path, kind) if _is_begun(first, kind) else _foreign(path, kind, 1)
        entries = []
        for number, line in enumerate(lines, start=2):
            try:
                entries.append(decode(json.loads(line)))
            except _NO_ENTRY as error:
                raise _foreign(path, kind, number) from error
        with storage_errors(path, "write"):
            file.truncate(whole)
        if not whole:
            _append(path, file, header)
        yield Journal(path, file, entries, encode)


def is_header(content: object, kind: str) -> bool:
    """Whether a line's content is the first of a journal of this kind."""
    return (
        isinstance(content, dict)
        and content.keys() == {"kind", "inputs"}
        and content["kind"] == kind
    )


def _is_begun(line: bytes, kind: str) -> bool:
    try:
        return is_header(json.loads(line), kind)
    except (ValueError, RecursionError):
        return False


def _append(path: Path, file: IO[bytes], data: bytes) -> None:
    with storage_errors(path, "write"):
        while data:
            data = data[file.write(data) :]


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _foreign(path: Path, kind: str, line: int) -> EvaluateError:
    return EvaluateError(
        f"{path}:{line}: not a line of {kind} results; name a new file, or one that this began"
    )


def _other(path: Path, kind: str) -> EvaluateError:
    return EvaluateError(
        f"{path}: holds {kind} results of other inputs: models, requests, options or judge; name a "
        "new file, or go on as it was begun"
    )
