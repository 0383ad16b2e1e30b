"""The metadata of a patch file: one JSON object, which may be a stranger's."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from patchc.errors import PatchFormatError

_MOST_NESTED = 64


def pack_metadata(metadata: Mapping[str, Any]) -> bytes:
    """The bytes of metadata before compression."""
    return json.dumps(metadata, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def parse_metadata(text: bytes) -> dict[str, Any]:
    """Read metadata whose every value can be shown and written again.

    Raises:
        PatchFormatError: it is not such an object.
    """
    try:
        metadata = json.loads(
            text.decode(), parse_constant=_refuse_constant, parse_float=_finite_number
        )
    except (ValueError, RecursionError) as error:
        raise PatchFormatError(f"the metadata is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise PatchFormatError("the metadata is not a JSON object")
    _check_nesting(metadata)
    return metadata


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is beyond every number")
    return number


def _check_nesting(metadata: dict[str, Any]) -> None:
    level: list[Any] = [metadata]
    for _ in range(_MOST_NESTED):
        values = (one.values() if isinstance(one, dict) else one for one in level)
        level = [value for held in values for value in held if isinstance(value, dict | list)]
        if not level:
            return
    raise PatchFormatError(f"the metadata is nested more than {_MOST_NESTED} deep")
