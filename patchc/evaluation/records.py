"""Records of a CSV, JSON or JSONL file, each with the place where it stands."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchc.errors import EvaluateError


@dataclass(frozen=True)
class Record:
    """Named values; ``source`` is their file and line, or item of a JSON list."""

    source: str
    values: dict[str, Any]


def read_records(path: Path) -> list[Record]:
    """Read a file of records.

    A name that ends in ``.csv`` is CSV as of RFC 4180 with a header line. Any other file is a JSON
    list of objects where it begins with ``[``, and one JSON object a line otherwise. Blank lines
    are skipped; a byte order mark is too.

    Raises:
        EvaluateError: the file cannot be read, is not UTF-8, holds no record, or one is malformed.
    """
    text = _read_text(path)
    if path.suffix.lower() == ".csv":
        records = list(_csv(path, text))
    elif text.lstrip().startswith("["):
        records = list(_json_list(path, text))
    else:
        records = list(_json_lines(path, text))
    if not records:
        raise EvaluateError(f"{path}: holds no record; give one a line")
    return records


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EvaluateError(f"{path}: cannot read: {error.strerror}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise EvaluateError(f"{path}:{line}: not UTF-8 text; convert the file") from error


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


def _json_list(path: Path, text: str) -> Iterator[Record]:
    items = _parse(str(path), text)
    for number, item in enumerate(items, start=1):
        yield _record(f"{path}: item {number}", item)


def _json_lines(path: Path, text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            source = f"{path}:{number}"
            yield _record(source, _parse(source, line))


def _parse(source: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EvaluateError(f"{source}: not JSON ({error})") from error


def _record(source: str, value: Any) -> Record:
    if not isinstance(value, dict):
        raise EvaluateError(f"{source}: not a JSON object but {type(value).__name__}")
    return Record(source, value)
