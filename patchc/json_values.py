"""JSON values: reports written as such values, and checks of the texts and messages read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

Message = dict[str, str]
"""One turn of a conversation: its "role" and its "content"."""


def json_values(value: Any) -> Any:
    """Dataclasses as objects, bytes in hexadecimal, paths as text.

    So are numbers that JSON does not have: "inf", "-inf", "nan". A field whose metadata says
    ``{"json": False}`` is left out.
    """
    if is_dataclass(value) and not isinstance(value, type):
        shown = [field.name for field in fields(value) if field.metadata.get("json", True)]
        return {name: json_values(getattr(value, name)) for name in shown}
    if isinstance(value, Mapping):
        return {name: json_values(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(one) for one in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Path) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    return value


def has_half_character(text: str) -> bool:
    """Whether a text holds a lone surrogate, which JSON can write and no file can."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def check_messages(source: str, value: list[Any], error: type[Exception]) -> list[Message]:
    """Return a list's messages: role and content of each; raises ``error``, naming ``source``."""
    messages = []
    for number, entry in enumerate(value, start=1):
        if not isinstance(entry, dict) or not isinstance(entry.get("role"), str):
            raise error(f'{source}: message {number} must be an object with a "role"')
        role = check_characters(source, f"message {number}: role", entry["role"], error)
        content = check_text(source, f"message {number}: content", entry.get("content"), error)
        messages.append({"role": role, "content": content})
    return messages


def check_text(source: str, name: str, value: Any, error: type[Exception]) -> str:
    """Return a text that is not blank; raises ``error``, naming ``source`` and ``name``."""
    if not isinstance(value, str) or not value.strip():
        raise error(f"{source}: {name} must be a text that is not empty")
    return check_characters(source, name, value, error)


def check_characters(source: str, name: str, text: str, error: type[Exception]) -> str:
    """Return a text without lone surrogates; raises ``error``, naming ``source`` and ``name``."""
    if has_half_character(text):
        raise error(f"{source}: {name} holds half a character (a lone surrogate)")
    return text
