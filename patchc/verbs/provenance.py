"""Metadata about the origin of a patch: the tool that made it, and the patches of a fold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from patchc.version import __version__

_DIGEST = re.compile("[0-9a-f]{64}")


def tool() -> dict[str, str]:
    """Return name and version of this program, for a patch's metadata."""
    return {"name": "patchc", "version": __version__}


def folded_patches(metadata: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the patches that a fold was made from, in order: root and result digest, in hex.

    Empty for any other patch, and for metadata of another form.
    """
    folded = metadata.get("folded")
    if metadata.get("kind") != "fold" or not isinstance(folded, list):
        return []
    sound = all(
        isinstance(link, dict)
        and link.keys() == {"root", "result"}
        and all(isinstance(one, str) and _DIGEST.fullmatch(one) for one in link.values())
        for link in folded
    )
    return folded if sound else []
