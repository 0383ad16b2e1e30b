"""What every patch says about the tool that made it, and a fold about what it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from patchc.version import __version__


def tool() -> dict[str, str]:
    """Name and version of this program, as JSON values."""
    return {"name": "patchc", "version": __version__}


def folded_patches(metadata: Mapping[str, Any]) -> list[dict[str, str]]:
    """The patches that a fold was made of, in order: root and result digest, in hexadecimal.

    Empty for any other patch, and where a stranger's metadata are not of this form.
    """
    folded = metadata.get("folded")
    if metadata.get("kind") != "fold" or not isinstance(folded, list):
        return []
    keys = {"root", "result"}
    if not all(isinstance(link, dict) and link.keys() == keys for link in folded):
        return []
    return folded if all(_is_digest(v) for link in folded for v in link.values()) else []


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")
