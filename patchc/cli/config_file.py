"""Options of commands from a TOML file, a table for each command."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from patchc.errors import UsageError
from patchc.recipe.plain_values import parse_toml, read_text
from patchc.system_errors import reason

_NOT_FROM_FILES = ("help", "config")
_OF_POLICY = ("trusted", "require")
_POLICY = "policy"
"""The table of what patches have to be (:mod:`patchc.signing.policy`)."""


def read_options(
    path: Path, command: str, commands: Collection[str], parameters: Iterable[Any]
) -> dict[str, Any]:
    """Read a command's table, as texts such as the command line has, by parameter.

    Args:
        path: the file.
        command: the name of the command and of its table.
        commands: the names that tables may have.
        parameters: what the command takes.

    Raises:
        UsageError: the file is missing or malformed, or has an unknown table or key, or a value
            that the option cannot take.
    """
    tables = _parse(path)
    for name, content in tables.items():
        if name == _POLICY:
            continue
        if name not in commands:
            raise UsageError(
                f"config {path}: {name!r:.80} is no command; a file has a table for each command, "
                f"such as [{_nearest(name, commands) or command}]"
            )
        if not isinstance(content, dict):
            raise UsageError(f"config {path}: {name} is not a table; write [{name}]")
    known = {key_of(one): one for one in parameters if key_of(one) not in _NOT_FROM_FILES}
    found = {}
    for key, value in tables.get(command, {}).items():
        where = f"config {path}: [{command}] {key:.80}"
        parameter = known.get(key)
        if parameter and key in _OF_POLICY:
            raise UsageError(
                f"{where} would not hold where the command line says otherwise; write it in "
                f"[{_POLICY}], where nothing weakens it"
            )
        if parameter is None:
            near = _nearest(key.replace("-", "_"), known)
            advice = f"did you mean {near}?" if near else f"see `patchc {command} --help`"
            raise UsageError(f"{where} is not an option of {command}; {advice}")
        if parameter.param_type_name == "argument":
            raise UsageError(f"{where} is an argument; give it on the command line")
        found[parameter.name] = _value(where, parameter, value)
    return found


def key_of(parameter: Any) -> str:
    """Return the key of a parameter in a file: its longest name, with underscores."""
    longest: str = max(parameter.opts, key=len)
    return longest.lstrip("-").replace("-", "_").lower()


def _parse(path: Path) -> dict[str, Any]:
    try:
        return parse_toml(read_text(path))
    except OSError as error:
        raise UsageError(f"config {path}: cannot read: {reason(error)}") from error
    except UsageError as error:
        raise UsageError(f"config {path}: {error}") from error


def _nearest(name: str, names: Iterable[str]) -> str | None:
    return next(iter(get_close_matches(name, names, 1)), None)


def _value(where: str, parameter: Any, value: Any) -> Any:
    if parameter.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{where} is {value!r:.80}; write true or false")
        return value
    if parameter.multiple:
        if not isinstance(value, list) or not all(map(_is_single, value)):
            raise UsageError(f"{where} is {value!r:.80}; write a list of texts or numbers")
        return [*map(str, value)]
    if not _is_single(value):
        raise UsageError(f"{where} is {value!r:.80}; write one text or number")
    return str(value)


def _is_single(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)
