"""The metadata of a patch file: one JSON object, which may be a stranger's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from patchc.errors import PatchFormatError
from patchc.strict_json import has_more_values, parse_json

_MOST_CONTAINERS = 1 << 17
_MOST_COMMAS = 1 << 19


def has_too_many_values(text: bytes) -> bool:
    """Whether metadata holds more than a reader takes, whose every value costs it memory.

    Brackets and commas are counted wherever they stand.
    """
    return has_more_values(text, _MOST_CONTAINERS, _MOST_COMMAS)


def pack_metadata(metadata: Mapping[str, Any]) -> bytes:
    """The bytes of metadata before compression."""
    return json.dumps(metadata, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def parse_metadata(text: bytes) -> dict[str, Any]:
    """Read metadata whose every value can be shown and written again.

    Raises:
        PatchFormatError: it is not such an object.
    """
    if has_too_many_values(text):
        raise PatchFormatError(
            f"the metadata has more than {_MOST_CONTAINERS:,} objects and arrays, or more than "
            f"{_MOST_COMMAS:,} commas"
        )
    try:
        metadata = parse_json(text)
    except ValueError as error:
        raise PatchFormatError(f"the metadata cannot be read: {error}") from error
    if not isinstance(metadata, dict):
        raise PatchFormatError("the metadata is not a JSON object")
    return metadata
