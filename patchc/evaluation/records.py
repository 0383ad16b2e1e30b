"""Reads CSV, JSON and JSONL files as records; each record knows where it stands in its file."""

from __future__ import annotations

import csv
import io
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchc.errors import EvaluateError, unreadable
from patchc.json_lines import MOST_BYTES, check_object, decode, read_data, read_objects
from patchc.other_kinds import START_BYTES, other_kind
from patchc.regular_file import read_regular
from patchc.strict_json import parse_json
from patchc.system_errors import reason

_MOST_LIST_BYTES = 1 << 28
_FORM = "give one JSON object a line, or a JSON list of objects, or CSV in a file named .csv"


@dataclass(frozen=True)
class Record:
    """Named values; ``source`` is their file and line, or their item of a JSON list."""

    source: str
    values: dict[str, Any]


def read_records(path: Path) -> list[Record]:
    """Read a file of records.

    A file whose name ends in ``.csv`` is CSV (RFC 4180) with a header line. Any other file is a
    JSON list of objects if it begins with ``[``, and otherwise JSONL. Blank lines and a byte order
    mark are skipped. See :mod:`patchc.json_lines` for the limits of files and lines.

    Raises:
        EvaluateError: the file cannot be read, is not UTF-8, holds no record, or one is malformed.
    """
    content = read_data(path, EvaluateError, "cannot read").removeprefix(BOM_UTF8)
    if path.suffix.lower() == ".csv":
        records = list(_csv(path, decode(path, content, EvaluateError)))
    elif content.lstrip().startswith(b"["):
        records = _items(path, content)
    else:
        lines = read_objects(path, content, EvaluateError, _FORM)
        records = [Record(source, values) for source, values in lines]
    if not records:
        raise EvaluateError(f"{path}: holds no record; give one per line")
    return records


def read_content(path: Path) -> bytes:
    """Read a file whole.

    Raises:
        EvaluateError: the file cannot be read; one that is missing, MissingRequestsError.
    """
    try:
        return read_regular(path, MOST_BYTES)
    except OSError as error:
        message = f"{path}: cannot read: {reason(error)}"
        raise unreadable(EvaluateError, message, error) from error


def read_text(path: Path, encoding: str = "utf-8-sig") -> str:
    """Read a UTF-8 file whole; by default without its byte order mark.

    Raises:
        EvaluateError: the file cannot be read, or is not UTF-8.
    """
    content = read_content(path)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        kind = other_kind(content[:START_BYTES])
        what = f"it is {kind}" if kind else "save it as UTF-8"
        raise EvaluateError(f"{path}:{line}: not UTF-8 text; {what}") from error


def _csv(path: Path, text: str) -> Iterator[Record]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] = []
    line = 1
    try:
        for row in reader:
            source, line = f"{path}:{line}", reader.line_num + 1
            if not row:
                continue
            if not columns:
                columns = [name.strip() for name in row]
                if len(set(columns)) != len(columns):
                    raise EvaluateError(f"{source}: the header names a column twice")
            elif len(row) != len(columns):
                raise EvaluateError(
                    f"{source}: {len(row)} fields where the header names {len(columns)}; put text "
                    "that holds a comma or a line break in quotes"
                )
            else:
                yield Record(source, dict(zip(columns, row, strict=True)))
    except csv.Error as error:
        raise EvaluateError(f"{path}:{line}: not CSV ({error})") from error


def _items(path: Path, content: bytes) -> list[Record]:
    if len(content) > _MOST_LIST_BYTES:
        raise EvaluateError(
            f"{path}: a JSON list of more than {_MOST_LIST_BYTES:,} bytes; write one JSON object a "
            "line"
        )
    try:
        items = parse_json(decode(path, content, EvaluateError))
    except ValueError as error:
        raise EvaluateError(f"{path}: not a JSON list ({error}); {_FORM}") from error
    sources = ((f"{path}: item {number}", item) for number, item in enumerate(items, start=1))
    return [Record(one, check_object(one, item, EvaluateError, _FORM)) for one, item in sources]
