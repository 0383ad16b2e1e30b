"""The values that JSON has: reports as such values, and texts that JSON alone can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any


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
