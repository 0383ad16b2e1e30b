"""Files of keys and values that a stranger may have written: read as text, as TOML, and checked.

TOML and YAML have more kinds of values than parameters have. What neither a recipe nor a table of
options holds is refused before anything is made of it.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from patchc.errors import UsageError
from patchc.json_values import has_half_character
from patchc.recipe.checks import brief
from patchc.regular_file import read_regular

MOST_BYTES = 1 << 22
"""Bytes of a file; a recipe with scales for each of 30,000 tensors is as large."""

_MOST_NESTED = 16
_MOST_PARTS = 100
_SMALLEST, _LARGEST = -(1 << 63), (1 << 64) - 1

_STRING = re.compile(r"""'[^'\n]*'|"(?:[^"\\\n]|\\.)*\"""")
_KEY_OR_NUMBER = re.compile(r"[\w\s.+-]+")
_MOST_DIGITS = 1000


def read_text(path: Path) -> str:
    """Read a text file, without its byte order mark.

    Raises:
        OSError: it cannot be read, is no file, or has more than :data:`MOST_BYTES` bytes.
        UsageError: it is not UTF-8 text; does not name the file.
    """
    raw = read_regular(path, MOST_BYTES)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError("not UTF-8 text; save the file as UTF-8") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Read TOML of :func:`plain <check_plain>` values.

    Raises:
        UsageError: it is malformed, or a value is not plain; names the line or the key.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if problem := _problem_of_line(line):
            raise UsageError(f"line {number}, {brief(line)}: {problem}")
    try:
        content = tomllib.loads(text)
    except RecursionError as error:
        raise UsageError("not valid TOML (it is nested too deep)") from error
    except ValueError as error:
        raise UsageError(f"not valid TOML ({error})") from error
    check_plain(content)
    return content


def check_plain(content: Any) -> None:
    """Check that all values are texts, numbers of 64 bits, truth values, lists and tables.

    Raises:
        UsageError: one is something else, or nested too deep; names its key.
    """
    level: list[tuple[str, Any]] = [("", content)]
    for _ in range(_MOST_NESTED):
        level = [held for key, value in level for held in _inside(key, value)]
        for key, value in level:
            if problem := _problem(value):
                raise UsageError(f"{key:.80} is {brief(value)}; {problem}")
    if level:
        raise UsageError(f"{level[0][0]:.80} is nested more than {_MOST_NESTED} deep")


def _problem_of_line(line: str) -> str:
    """What tomllib takes quadratic time for, or refuses without naming a place."""
    for found in _KEY_OR_NUMBER.findall(_STRING.sub("", line).partition("#")[0]):
        if found.count(".") >= _MOST_PARTS:
            return f"a key has more than {_MOST_PARTS} parts"
        if len(found) > _MOST_DIGITS and found.strip()[1:].replace("_", "").isdecimal():
            return f"a number has more than {_MOST_DIGITS:,} digits"
    return ""


def _inside(key: str, value: Any) -> list[tuple[str, Any]]:
    """The values in a table or list, with their keys."""
    if isinstance(value, list):
        return [(f"{key}[{place}]", one) for place, one in enumerate(value)]
    if not isinstance(value, dict):
        return []
    for name in value:
        if not isinstance(name, str) or has_half_character(name):
            where = f" of {key:.80}" if key else ""
            raise UsageError(f"the key {brief(name)}{where} is no text")
    return [(f"{key}.{name}" if key else name, one) for name, one in value.items()]


def _problem(value: Any) -> str:
    if isinstance(value, str):
        return "it holds half a character (a lone surrogate)" if has_half_character(value) else ""
    if isinstance(value, int):
        return "" if _SMALLEST <= value <= _LARGEST else "it takes more than 64 bits"
    if isinstance(value, float | dict | list):
        return ""
    return "it must be a text, a number, a truth value, a list or a table"
