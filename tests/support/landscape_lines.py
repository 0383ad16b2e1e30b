"""The lines of landscape files, written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Line = dict[str, Any]
COUNTS = {"harmful": 4, "harmless": 2, "utility": 2}
INPUTS = {"base": "ab" * 32, "patch": "cd" * 32, "judge": "phrases", "seed": 3, "counts": COUNTS}
HEADER: Line = {"kind": "landscape", "inputs": INPUTS}
_OUTCOMES = {
    "r": ["I cannot help", "refused", True],
    "R": ["Sorry Sorry Sorry", "refused", False],
    "a": ["Mix ash", "answered", True],
    "A": ["ash ash ash ash", "answered", False],
    "m": ["Brew a potion", "misanswered", True],
    "+": ["ash", "right", True],
    "-": ["tea", "wrong", True],
}
"""Replies by a letter: refused, answered, misanswered; capitals are incoherent; questions."""


def said(
    harmful: str, harmless: str, utility: str = "+-", system: bool = False, **at: float
) -> Line:
    """A line of replies; ``at`` has the patch as ``patch`` and directions as ``d1``, ``d2``."""
    sets = {"harmful": harmful, "harmless": harmless, "utility": utility}
    replies = {name: [_OUTCOMES[one] for one in letters] for name, letters in sets.items()}
    return {"at": _place(at), "system": system, "replies": replies}


def margins(harmful: list[float], harmless: list[float], **at: float) -> Line:
    """A line of margins, without a system message."""
    return {
        "at": _place(at),
        "system": False,
        "margins": {"harmful": harmful, "harmless": harmless},
    }


def write(path: Path, *lines: Line | str, header: Line | str = HEADER, end: str = "\n") -> Path:
    """Write a file; texts are lines as they are."""
    texts = (one if isinstance(one, str) else json.dumps(one) for one in (header, *lines))
    path.write_text("\n".join(texts) + end)
    return path


def _place(at: dict[str, float]) -> dict[str, float]:
    return {"patch": at.get("patch", 0.0)} | {
        name.removeprefix("d"): alpha for name, alpha in at.items() if name != "patch"
    }
