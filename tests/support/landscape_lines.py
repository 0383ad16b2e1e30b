"""The lines of landscape files, written by hand; and lines that are none."""

from __future__ import annotations

import json
from copy import deepcopy
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


def changed(line: dict[str, Any], *path: Any, to: Any) -> dict[str, Any]:
    """A line with another value at a path."""
    line = deepcopy(line)
    inner = line
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = to
    return line


SAID, MARGIN = (
    said("rRaA", "aA", d1=-0.5),
    margins([0.5, 1.0, 1.5, 2.0], [-1.0, -2.0], d1=0.5, d2=0.5),
)
TEXT = "<script>alert(1)</script>\x1b[31m"
DAMAGED: dict[str, Any] = {
    "nothing": "",
    "no JSON": "{",
    "a list": "[]",
    "a number": "3",
    "a text": '"at"',
    "no place": {"system": False, "replies": SAID["replies"]},
    "no system": {"at": SAID["at"], "replies": SAID["replies"]},
    "no replies": {"at": SAID["at"], "system": False},
    "system 0": changed(SAID, "system", to=0),
    "a place that is a list": changed(SAID, "at", to=[1]),
    "a place without patch": changed(SAID, "at", to={"1": 0.5}),
    "an alpha that is a text": changed(SAID, "at", "1", to="0.5"),
    "NaN as a text": changed(SAID, "at", "1", to="nan"),
    "an alpha that is true": changed(SAID, "at", "1", to=True),
    "a huge alpha": changed(SAID, "at", "1", to=1e300),
    "a direction of markup": changed(SAID, "at", TEXT, to=0.5),
    "a direction of other digits": changed(SAID, "at", "\u0661", to=0.5),
    "an unknown set": changed(SAID, "replies", TEXT, to=[]),
    "a set less": changed(SAID, "replies", to={"harmful": SAID["replies"]["harmful"]}),
    "a reply less": changed(SAID, "replies", "harmful", to=SAID["replies"]["harmful"][1:]),
    "replies as a text": changed(SAID, "replies", "harmful", to="abcd"),
    "replies as an object": changed(
        SAID, "replies", "harmful", to={"a": 1, "b": 2, "c": 3, "d": 4}
    ),
    "a reply that is null": changed(SAID, "replies", "harmful", 0, to=None),
    "a reply of two": changed(SAID, "replies", "harmful", 0, to=["a", "refused"]),
    "a reply that is no text": changed(SAID, "replies", "harmful", 0, to=[1, "refused", True]),
    "an unknown outcome": changed(SAID, "replies", "harmful", 0, to=["a", TEXT, True]),
    "another set's outcome": changed(SAID, "replies", "harmful", 0, to=["a", "right", True]),
    "an outcome that is a list": changed(SAID, "replies", "harmful", 0, to=["a", [], True]),
    "coherent 1": changed(SAID, "replies", "harmful", 0, to=["a", "refused", 1]),
    "a margin less": changed(MARGIN, "margins", "harmless", to=[1.0]),
    "a margin that is a text": changed(MARGIN, "margins", "harmless", 0, to="inf"),
    "a margin that is null": changed(MARGIN, "margins", "harmless", 0, to=None),
    "a huge margin": changed(MARGIN, "margins", "harmless", to=[1.7e308, 1.7e308]),
    "margins of questions": changed(MARGIN, "margins", "utility", to=[1.0, 1.0]),
    "margins that are a list": changed(MARGIN, "margins", to=[]),
    "NaN": json.dumps(MARGIN).replace("-1.0", "NaN"),
    "Infinity": json.dumps(MARGIN).replace("-1.0", "Infinity"),
    "a number beyond every number": json.dumps(MARGIN).replace("-1.0", "1e999"),
    "a whole number beyond 64 bits": json.dumps(MARGIN).replace("-1.0", "9" * 400),
    "a key twice": json.dumps(SAID).replace('{"patch"', '{"patch": 1, "patch"'),
    "half a character": json.dumps(SAID).replace("I cannot help", "\\ud800"),
    "nested": "[" * 5000,
}
HEADERS: dict[str, Any] = {
    "nothing": "",
    "another kind": {**HEADER, "kind": "evaluation"},
    "a line of replies": SAID,
    "no inputs": {"kind": "landscape"},
    "more": {**HEADER, "more": 1},
    "inputs of markup": {**HEADER, "inputs": TEXT},
    **{
        f"no {name}": {**HEADER, "inputs": {k: v for k, v in INPUTS.items() if k != name}}
        for name in INPUTS
    },
    **{
        f"{name}: {value!r:.20}": changed(HEADER, "inputs", name, to=value)
        for name, value in (
            *(("base", 3), ("base", None), ("patch", 1.5), ("judge", ["phrases"]), ("seed", "3")),
            *(("seed", True), ("seed", 1.5), ("counts", [4, 2]), ("counts", {}), ("counts", None)),
            *(("counts", {**COUNTS, name: count}) for name in COUNTS for count in (0, "4", True)),
            ("counts", {**COUNTS, TEXT: 1}),
            ("counts", {"harmful": 4, "utility": 2}),
        )
    },
}  # fmt: skip
