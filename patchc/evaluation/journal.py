"""A file of entries, one per line, from which an interrupted run can continue."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from patchc.errors import EvaluateError, OutputError
from patchc.escaping import visible_json
from patchc.files import made_folders
from patchc.json_lines import MOST_BYTES, name_some
from patchc.reserved import reserved
from patchc.strict_json import parse_json
from patchc.system_errors import storage_errors

Entry = TypeVar("Entry")

_NO_ENTRY = (
    ValueError, LookupError, TypeError, AttributeError, ZeroDivisionError, RecursionError,
)  # fmt: skip


_TEXTS = {
    "evaluation": "requests, judge or how they are asked",
    "prompts": "chat template or tokenizer",
    "patchc": "the version of patchc",
}
"""What inputs are called in messages, where their names do not say it."""

Remedy = Callable[[Path, Sequence[str]], str]


def _advise(_path: Path, _differing: Sequence[str]) -> str:
    return "name a new file, or continue with the inputs that began it"


@dataclass(frozen=True)
class Journal(Generic[Entry]):
    """An open journal: its entries, each found by a key, which is a JSON value."""

    path: Path
    _file: IO[bytes]
    _encode: Callable[[Entry], dict[str, Any]]
    _key: Callable[[Entry], Any]
    _entries: dict[str, Entry] = field(default_factory=dict)

    def find(self, key: Any) -> Entry | None:
        """Return the entry with this key, or None."""
        return self._entries.get(_text(key))

    def all(self) -> tuple[Entry, ...]:
        """Return every entry, in the order in which they were added."""
        return tuple(self._entries.values())

    def add(self, *entries: Entry) -> None:
        """Append the entries that are not there yet; the operating system has them on return.

        Raises:
            StorageError: the operating system refused.
        """
        new = {_text(self._key(entry)): entry for entry in entries}
        new = {key: entry for key, entry in new.items() if key not in self._entries}
        self._append(b"".join(_line(self._encode(entry)) for entry in new.values()))
        self._entries.update(new)

    def _read(
        self,
        header: bytes,
        earlier: bytes | None,
        kind: str,
        decode: Callable[[Any], Entry],
        remedy: Remedy,
    ) -> None:
        with storage_errors(self.path, "read"):
            size = os.fstat(self._file.fileno()).st_size
            if size > MOST_BYTES:
                raise EvaluateError(
                    f"{self.path}: has more than {MOST_BYTES:,} bytes; name a new file"
                )
            self._file.seek(0)
            content = self._file.read()  # with a size, it would take that much at once
        whole = content.rfind(b"\n") + 1
        first, *lines = content[:whole].split(b"\n")[:-1] or [header[:-1]]
        inputs, begun = _inputs(header, kind), _inputs(first, kind)
        if first + b"\n" == earlier or (begun is not None and begun == inputs):
            header = first + b"\n"
        elif begun is not None:
            differing = _find_differing(begun, inputs)
            texts = (_TEXTS.get(name, name) for name in differing)
            named = name_some(texts) if differing else "models, requests, options or judge"
            raise EvaluateError(
                f"{self.path}: holds {kind} results of other inputs: {named}; "
                f"{remedy(self.path, differing)}"
            )
        if first + b"\n" != header or not (whole or header.startswith(content)):
            raise _foreign(self.path, kind, 1)
        for number, line in enumerate(lines, start=2):
            try:
                entry = decode(parse_json(line))
            except _NO_ENTRY as error:
                why = f" ({type(error).__name__}: {error!s:.200})" if str(error) else ""
                raise _foreign(self.path, kind, number, why) from error
            self._entries[_text(self._key(entry))] = entry
        with storage_errors(self.path, "write"):
            self._file.truncate(whole)
        if not whole:
            self._append(header)

    def _append(self, data: bytes) -> None:
        with storage_errors(self.path, "write"):
            while data:
                data = data[self._file.write(data) :]


@contextmanager
def open_journal(
    path: Path,
    kind: str,
    inputs: Any,
    encode: Callable[[Entry], dict[str, Any]],
    decode: Callable[[Any], Entry],
    key: Callable[[Entry], Any] | None = None,
    earlier: Any = None,
    remedy: Remedy = _advise,
) -> Iterator[Journal[Entry]]:
    """Open a journal, or begin one; its first line states its kind and inputs.

    A last line that a kill cut short is dropped. A file that is not such a journal is not touched.
    One process at a time has a journal open.

    Args:
        path: the file.
        kind: what it collects, in a word.
        inputs: what its entries belong to, as JSON values.
        encode: turns an entry into a JSON object.
        decode: its inverse. ValueError, LookupError, TypeError, AttributeError and
            ZeroDivisionError mean that a line is no entry.
        key: what an entry is found by, as a JSON value; None takes all that ``encode`` gives.
        earlier: the same inputs as earlier versions stated them, or None.
        remedy: says what to do about a file of other inputs, from its path and what differs.

    Raises:
        EvaluateError: the file is no such journal, or one of other inputs.
        InUseError: another process has it open; says which.
        OutputError: it is no file, but a folder or a pipe.
        StorageError: the operating system refused.
    """
    header = _line({"kind": kind, "inputs": inputs})
    before = None if earlier is None else _line({"kind": kind, "inputs": earlier})
    with storage_errors(path, "reach"):
        file_path = Path(os.path.realpath(path))
        _refuse_no_file(file_path)
    with made_folders(file_path.parent), reserved(file_path, path), _opened(file_path) as file:
        journal = Journal(path, file, encode, key or encode)
        journal._read(header, before, kind, decode, remedy)
        yield journal


def _refuse_no_file(path: Path) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.stat().st_mode):
            raise OutputError(f"output {path} is no file; remove it or choose another path")


def _opened(path: Path) -> IO[bytes]:
    with storage_errors(path, "write"):
        return path.open("a+b", buffering=0)


def is_header(content: object, kind: str) -> bool:
    """Return whether a line's content is the first of a journal of this kind."""
    names = {"kind", "inputs"}
    return isinstance(content, dict) and content.keys() == names and content["kind"] == kind


def _inputs(line: bytes, kind: str) -> Any:
    """The inputs that a first line states; None where it is no first line."""
    with suppress(ValueError):
        content = parse_json(line)
        if is_header(content, kind):
            return content["inputs"]
    return None


def _find_differing(begun: object, given: object) -> list[str]:
    """Name the inputs that differ, where both have names."""
    if not (isinstance(begun, dict) and isinstance(given, dict)):
        return []
    names = dict.fromkeys((*begun, *given))
    return [name for name in names if begun.get(name) != given.get(name)]


def _text(key: Any) -> str:
    return json.dumps(key, sort_keys=True)


def _line(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return visible_json(text).encode() + b"\n"


def _foreign(path: Path, kind: str, line: int, why: str = "") -> EvaluateError:
    return EvaluateError(
        f"{path}:{line}: not a line of {kind} results; name a new file, or a file of such "
        f"results{why}"
    )
