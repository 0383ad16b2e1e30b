"""What every patch says about the tool that made it."""

from __future__ import annotations

from patchc.version import __version__


def tool() -> dict[str, str]:
    """Name and version of this program, as JSON values."""
    return {"name": "patchc", "version": __version__}
